defmodule Snex.Interpreter.ReplyLimitTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  @limits [limits: [reply: 1_000]]
  # What a frame may have beyond the limit; see `frame.rs`.
  @spare 1024 * 1024

  describe "more than limits: [reply: bytes]" do
    test "as a result is an error of that call, which says how much it is and which option sets the limit" do
      inp = start_interpreter!(@limits)
      assert {:error, error} = Snex.pyeval(inp, "return b'x' * 2000")
      assert %Error{code: :python_runtime_error, exception: %{type: "TooLargeError"}} = error

      assert error.reason ==
               "too large for Elixir: at least 2006 bytes, and the limit is 1000 " <>
                 "(the interpreter's option limits: [reply: bytes])"

      assert Snex.pyeval(inp, "return len(b'x' * 2000)") == {:ok, 2000}
      assert {:ok, <<_::binary-size(990)>>} = Snex.pyeval(inp, "return b'x' * 990")
    end

    test "disturbs no other call" do
      inp = start_interpreter!(@limits ++ [init_script: "import asyncio\ngo = asyncio.Event()"])
      here = self()

      other =
        Task.async(fn ->
          Snex.pyeval(inp, "await snex.send(to, 'waits')\nawait go.wait()\nreturn 'waited'", %{"to" => here})
        end)

      assert_receive "waits", 60_000

      for _ <- 1..20 do
        assert {:error, %Error{reason: "too large" <> _}} = Snex.pyeval(inp, "return [0.5] * 1000")
      end

      assert Snex.pyeval(inp, "go.set()") == {:ok, nil}
      assert Task.await(other, 60_000) == {:ok, "waited"}
    end

    test "as a message or an argument is an exception where Python sends it" do
      inp = start_interpreter!(@limits)

      code = """
      try:
          await send
      except ValueError as error:
          await snex.send(to, "small")
          return str(error)[:21]
      """

      for send <- ["snex.send(to, 'x' * 2000)", "Elixir.String.length('x' * 2000)"] do
        code = String.replace(code, "await send\n", "await #{send}\n")
        assert Snex.pyeval(inp, code, %{"to" => self()}) == {:ok, "too large for Elixir:"}
        assert_receive "small", 60_000
      end
    end

    test "as an error, or printed, or in an answer of Elixir's, arrives" do
      inp = start_interpreter!(@limits ++ [output: self()])
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "raise ValueError('x' * 20_000)")
      assert reason == String.duplicate("x", 20_000)
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "raise ValueError('x' * 2_000_000)")
      assert reason == String.duplicate("x", 1000) <> "..."
      assert Snex.pyeval(inp, "print('x' * 2_000_000)") == {:ok, nil}
      assert Snex.pyeval(inp, "return len(await Elixir.String.duplicate('x', 5000))") == {:ok, 5000}
    end

    test "is refused without the extension as well" do
      inp = start_interpreter!(@limits ++ [environment: %{"SNEX_ENCODER" => "pure"}])
      assert Interpreter.info(inp).encoder == "pure"
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return b'x' * 2000")
      assert reason =~ "at least 2006 bytes, and the limit is 1000"
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "by default is more than 2 GiB, and takes no memory" do
      inp = start_interpreter!()
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return bytes(3 << 30)", timeout: 60_000)
      assert reason =~ "at least 3221225478 bytes, and the limit is 2147483648"
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    for {what, descriptor, kind} <- [{"a result", 4, 0x83}, {"an error", 4, 0x84}, {"a print", 5, 0x88}] do
      test "from a Python that does not keep to it ends that interpreter: #{what}" do
        Process.flag(:trap_exit, true)
        {:ok, inp} = Interpreter.start_link(@limits)
        length = 1_000 + @spare + 1

        code = """
        import asyncio, os, struct
        os.write(descriptor, b"SX" + struct.pack("<BBQQQ", kind, 0, 1, length, 0))
        await asyncio.Event().wait()
        """

        vars = %{"descriptor" => unquote(descriptor), "kind" => unquote(kind), "length" => length}

        capture_log(fn ->
          assert {:error, %Error{code: :internal_error} = error} =
                   Snex.pyeval(inp, code, vars, timeout: 60_000)

          assert error.reason =~ "with #{length} bytes, and the limit is 1000 (limits: [reply: bytes])"
          assert_receive {:EXIT, ^inp, %Error{code: :internal_error}}, 60_000
        end)
      end
    end
  end
end
