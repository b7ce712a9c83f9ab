defmodule Snex.BadInputTest do
  # Not async: it counts descriptors and memory of this VM.
  use Snex.Case

  alias Snex.Figures

  @moduletag :capture_log

  # Each row: what is fed, as a function of the interpreter that asserts what comes of it. Fed again and again while others
  # have calls in flight; see `feed/2`.

  # Written to the protocol descriptors by the code itself, as broken code of ours would.
  @frames """
  import os, struct

  def frame(kind, number, body, length=None):
      length = len(body) if length is None else length
      return b"SX" + struct.pack("<BBQQQ", kind, 0, number, length, 0) + body

  def own_number():
      from snex._eval.request import current
      return current.get().number

  async def answer(kind, body):
      import asyncio
      os.write(4, frame(kind, own_number(), body))
      # A second answer would be garbage.
      await asyncio.Event().wait()
  """

  setup_all do
    Figures.load_modules()
  end

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  describe "is an error of the one call, and of nothing else:" do
    test "a result that cannot be encoded" do
      inp = start_interpreter!()

      feed(inp, fn ->
        assert {:error, error} = Snex.pyeval(inp, "return {'deep': [object()]}")
        assert error.reason =~ "Cannot serialize object of <class 'object'>"
        assert {:error, error} = Snex.pyeval(inp, "x = []; x.append(x); return x")
        assert error.exception.type == "ValueError"
        assert {:error, error} = Snex.pyeval(inp, "return 'lone \\udc80'")
        assert error.exception.type == "UnicodeEncodeError"
      end)
    end

    test "a variable that Python has no memory for" do
      inp = start_interpreter!(limits: [memory: 400_000_000], on_memory_limit: :keep, output: :discard)
      large = :binary.copy("x", 500_000_000)

      for x <- [large, Serde.binary(large), Serde.binary(large, :bytearray), List.duplicate(large, 2)] do
        assert {:error, error} = Snex.pyeval(inp, "return len(x)", %{"x" => x}, timeout: 60_000)
        assert error.exception.type == "MemoryError"
        assert error.reason == "not enough memory for 500000000 bytes"
        assert {:error, error} = Snex.make_env(inp, %{"x" => x})
        assert error.exception.type == "MemoryError"
        assert Snex.pyeval(inp, "return len(x)", %{"x" => "small"}) == {:ok, 5}
      end
    end

    test "a variable that cannot be encoded" do
      inp = start_interpreter!()

      feed(inp, fn ->
        assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => <<"no text", 0xFF>>})
        assert error.exception.type == "UnicodeDecodeError"
        assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => %{[] => 1}})
        assert error.exception.type == "TypeError"
        assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => Serde.object("math", "sqrt", [-1])})
        assert error.reason =~ "math domain error" or error.exception.type == "ValueError"
        assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => Serde.object("nowhere", "at_all", [])})
        assert error.exception.type == "ModuleNotFoundError"
        assert {:error, error} = Snex.make_env(inp, %{"x" => <<0xFF>>})
        assert error.exception.type == "UnicodeDecodeError"
        assert_raise ArgumentError, fn -> Snex.pyeval(inp, "return x", %{<<0xFF>> => 1}) end
        assert_raise ArgumentError, fn -> Snex.pyeval(inp, "return x", %{x: 1}) end
      end)
    end

    test "an encoder that raises" do
      inp = start_interpreter!()

      feed(inp, fn ->
        assert {:error, %Error{code: :call_failed, reason: %{__exception__: true}}} =
                 Snex.pyeval(inp, "return x", %{"x" => [1, %Snex.Broken{how: :raise}]})
      end)
    end

    test "code that does not parse" do
      inp = start_interpreter!()

      feed(inp, fn ->
        code = %Snex.Code{src: "x = 1\nx = = 2", file: "/app/lib/mine.ex", line: 40}
        assert {:error, error} = Snex.pyeval(inp, code)
        assert error.exception.type == "SyntaxError"
        assert Enum.join(error.traceback) =~ ~s(File "/app/lib/mine.ex", line 41)
        assert {:error, %{code: :python_runtime_error}} = Snex.pyeval(inp, "x = \0")
        assert {:error, %{code: :python_runtime_error}} = Snex.pyeval(inp, "x = '" <> <<0xFF>> <> "'")
        assert {:error, %{code: :python_runtime_error}} = Snex.pyeval(inp, String.duplicate("(", 10_000))
      end)
    end

    test "code that raises what ends other programs" do
      inp = start_interpreter!()

      feed(inp, fn ->
        for raised <-
              ~w[SystemExit(3) KeyboardInterrupt() GeneratorExit() BaseException("x") snex.Cancelled()] do
          assert {:error, %Error{code: :python_runtime_error} = error} =
                   Snex.pyeval(inp, "import asyncio\nawait asyncio.sleep(0)\nraise #{raised}")

          assert raised =~ error.exception.type
          assert {:error, %Error{code: :python_runtime_error}} = Snex.pyeval(inp, "raise #{raised}")
        end
      end)
    end

    test "a reply that does not decode" do
      inp = start_interpreter!(init_script: @frames)

      bodies = [
        "b''",
        "b'no term'",
        # A list, a tuple, a binary and a big integer that claim to be longer than they are.
        "b'\\x83l\\xff\\xff\\xff\\xffa\\x01'",
        "b'\\x83i\\xff\\xff\\xff\\xffa\\x01'",
        "b'\\x83m\\xff\\xff\\xff\\xffabc'",
        "b'\\x83o\\xff\\xff\\xff\\xff\\x00abc'",
        # A term that claims to be 4 GiB when it is decompressed.
        "b'\\x83P\\xff\\xff\\xff\\xff' + __import__('zlib').compress(b'a\\x01')",
        "b'\\x83'"
      ]

      feed(inp, fn ->
        for body <- bodies do
          assert {:error, %Error{code: :internal_error, reason: reason}} =
                   Snex.pyeval(inp, "await answer(0x83, #{body})")

          assert reason =~ "a term from Python"

          assert {:error, %Error{code: :internal_error}} =
                   Snex.pyeval(inp, "await answer(0x84, #{body})")
        end

        assert {:error, %Error{code: :internal_error, reason: reason}} =
                 Snex.pyeval(inp, "await answer(0x84, b'\\x83a\\x07')")

        assert reason == "an error from Python cannot be understood: 7"
      end)
    end

    test "a call from Python that does not decode" do
      inp = start_interpreter!(init_script: @frames)

      feed(inp, fn ->
        for kind <- [0x85, 0x87] do
          assert {:error, %Error{code: :response_timeout}} =
                   Snex.pyeval(
                     inp,
                     """
                     import asyncio
                     os.write(4, frame(#{kind}, 2 ** 40, b'\\x83l\\xff\\xff\\xff\\xff'))
                     await asyncio.Event().wait()
                     """,
                     timeout: 50
                   )
        end
      end)
    end

    test "an environment that is gone" do
      inp = start_interpreter!()

      feed(inp, fn ->
        env = Snex.make_env!(inp)
        Snex.destroy_env(env)
        assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
        assert {:error, %Error{code: :env_not_found}} = Snex.make_env(from: env)
        other = Snex.make_env!(inp)
        assert {:error, %Error{code: :env_key_not_found}} = Snex.make_env(from: {other, only: ["nothing"]})
        Snex.destroy_env(other)
      end)
    end

    test "a function that :allow refuses" do
      inp = start_interpreter!(allow: [String])

      feed(inp, fn ->
        assert {:error, error} = Snex.pyeval(inp, "return await Elixir.Enum.sum([1])")
        assert error.exception.type == "ElixirError"
        assert error.reason =~ "Enum.sum/1"
        assert Snex.pyeval(inp, "return await Elixir.String.upcase('a')") == {:ok, "A"}
      end)
    end

    test "an Elixir function that does not exist, raises, exits or throws" do
      inp = start_interpreter!()

      feed(inp, fn ->
        for {call, kind} <- [
              {"Elixir.Nothing.at_all()", "error"},
              {"Elixir.Enum.sum('x')", "error"},
              {"snex.BeamModuleProxy('erlang').exit(snex.Atom('so'))", "exit"},
              {"snex.BeamModuleProxy('erlang').throw(7)", "throw"}
            ] do
          assert Snex.pyeval(inp, "try: await #{call}\nexcept snex.ElixirError as e: return e.kind") ==
                   {:ok, kind}

          assert {:error, %{exception: %{type: "ElixirError"}}} = Snex.pyeval(inp, "await #{call}")
        end

        # As in Erlang, a message to a name that nobody has is lost.
        assert Snex.pyeval(inp, "return await snex.send(snex.Atom('nobody'), 1)") == {:ok, nil}
        assert {:error, %{exception: %{type: "ElixirError"}}} = Snex.pyeval(inp, "await snex.send(1, 1)")
      end)
    end

    test "a path that leads nowhere, and arguments that Python refuses" do
      inp = start_interpreter!()

      feed(inp, fn ->
        for {path, args, type} <- [
              {"nothing_of_the_kind", [], "NameError"},
              {"math.nothing", [], "AttributeError"},
              {{"nowhere", "f"}, [], "ModuleNotFoundError"},
              {"math.sqrt", [], "TypeError"},
              {"math.sqrt", ["x"], "TypeError"},
              {"math.pi", [], "TypeError"},
              {"sys.exit", [3], "SystemExit"}
            ] do
          assert {:error, %Error{code: :python_runtime_error, exception: %{type: ^type}}} =
                   Snex.call(inp, path, args)
        end

        assert_raise ArgumentError, fn -> Snex.call(inp, "a..b") end
        assert_raise ArgumentError, fn -> Snex.call(inp, "len", [1 | 2]) end
        assert_raise ArgumentError, fn -> Snex.call(inp, "len", [], kwargs: [1]) end
      end)
    end

    test "an object that was released, that is of another interpreter, which is gone, or forged by hand" do
      inp = start_interpreter!()
      {:ok, other} = Interpreter.start_link()
      foreign = Snex.call!(other, "object")
      Interpreter.stop(other)
      assert_receive {:EXIT, ^other, :normal}, 60_000

      feed(inp, fn ->
        object = Snex.call!(inp, "object")
        assert_raise ArgumentError, fn -> Snex.call(inp, "repr", [foreign]) end
        assert_raise ArgumentError, fn -> Snex.Object.repr(%{foreign | interpreter: inp}) end
        assert_raise ArgumentError, fn -> Snex.Object.repr(%{object | id: object.id + 1}) end
        assert_raise ArgumentError, fn -> Snex.pyeval(inp, "pass", %{"x" => %{object | id: "1"}}) end
        Snex.Object.release(object)
        Snex.Object.release(object)

        for gone <- [object, %{object | handle: make_ref()}] do
          assert {:error, %Error{code: :object_not_found}} = Snex.Object.repr(gone)
          assert {:error, %Error{code: :object_not_found}} = Snex.call(inp, "len", [[gone]])
          assert {:error, %Error{code: :object_not_found}} = Snex.make_env(inp, %{"x" => gone})
        end
      end)

      assert {:error, %Error{code: :object_not_found}} = Snex.Object.repr(foreign)
    end

    test "objects whose own code fails, however it is asked" do
      inp =
        start_interpreter!(
          output: :discard,
          init_script: """
          class Bad:
              def fail(self, *args): raise SystemExit(repr(type(self)))
              __repr__ = __str__ = __len__ = __getitem__ = __getattr__ = __call__ = __eq__ = __dir__ = fail
              __reduce_ex__ = __del__ = fail
              __hash__ = None
              __class__ = property(fail)
          """
        )

      feed(inp, fn ->
        bad = Snex.call!(inp, "Bad", [], returns: :object)
        assert inspect(bad) == "#Snex.Object<Bad #{bad.id}>"

        for ask <- [
              &Snex.Object.repr/1,
              &Snex.Object.str/1,
              &Snex.Object.length/1,
              &Snex.Object.item(&1, 1),
              &Snex.Object.get(&1, "x"),
              &Snex.Object.call(&1, []),
              &Snex.Object.copy(&1, inp)
            ] do
          assert {:error, %Error{exception: %{type: "SystemExit"}}} = ask.(bad)
        end

        assert {:error, %Error{exception: %{type: "TypeError"}}} = Snex.Object.value(bad)
        assert {:ok, [%Snex.Object{}]} = Snex.pyeval(inp, "return [x]", %{"x" => bad}, returns: :auto)
      end)
    end

    test "output of any size" do
      inp = start_interpreter!(output: :discard)

      feed(inp, fn ->
        assert Snex.pyeval(inp, "print('x' * 3_000_000); print('y\\n' * 10_000)") == {:ok, nil}

        assert {:error, error} =
                 Snex.pyeval(inp, "import sys; sys.stderr.write('é' * 300_000); return object()")

        assert error.exception.type == "TypeError"
      end)
    end

    test "a caller that gives up, or is killed" do
      inp = start_interpreter!()

      feed(inp, fn ->
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(inp, "import asyncio; await asyncio.Event().wait()", timeout: 10)

        here = self()

        {pid, monitor} =
          spawn_monitor(fn ->
            Snex.pyeval(inp, "import asyncio; await snex.send(to, 1); await asyncio.Event().wait()", %{
              "to" => here
            })
          end)

        assert_receive 1, 60_000
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 60_000
      end)
    end
  end

  describe "ends its interpreter with :internal_error and says what was seen, and others go on:" do
    @garbage [
      {"bytes that are no frame", "os.write(4, b'this is no frame')",
       ~s(expected a frame, got "this is no frame)},
      {"an unknown kind", "os.write(4, frame(0x42, 1, b''))", "0x42"},
      {"an unknown flag", "os.write(4, b'SX\\x83\\x40' + bytes(16))", "flags"},
      {"a kind that only the VM may send", "os.write(4, frame(0x02, 1, b''))", "frame of unknown kind 0x02"},
      {"a length that nothing can have", "os.write(4, frame(0x83, 1, b'', length=2 ** 63))",
       "9223372036854775808"},
      {"an answer to a request that was never made", "os.write(4, frame(0x83, 2 ** 40, b'\\x83a\\x01'))",
       "an answer to request 1099511627776, which was never made"},
      {"a second handshake", "os.write(4, frame(0x81, 0, b'\\x83a\\x01'))", "a frame of kind Ready after"},
      {"garbage where prints go",
       "os.write(5, b'neither is this'); import asyncio; await asyncio.Event().wait()", "neither is this"}
    ]

    for {what, code, seen} <- @garbage do
      test what do
        bystander = start_interpreter!()

        feed(bystander, 5, fn ->
          inp = start_with_frames!()
          here = self()

          caller =
            Task.async(fn ->
              Snex.pyeval(
                inp,
                "import asyncio; await snex.send(to, 'waits'); await asyncio.Event().wait()",
                %{"to" => here}
              )
            end)

          assert_receive "waits", 60_000
          assert {:error, %Error{code: :internal_error, reason: reason}} = Snex.pyeval(inp, unquote(code))
          assert reason =~ unquote(seen)
          assert {:error, %Error{code: :internal_error, reason: ^reason}} = Task.await(caller, 60_000)
          assert_receive {:EXIT, pid, :normal} when pid == caller.pid, 60_000
          assert_receive {:EXIT, ^inp, %Error{code: :internal_error, reason: ^reason}}, 60_000
        end)
      end
    end

    test "a frame cut short" do
      bystander = start_interpreter!()

      feed(bystander, 5, fn ->
        inp = start_with_frames!()
        code = "os.write(4, frame(0x83, own_number(), b'begun', length=1000)); os._exit(3)"
        assert {:error, %Error{code: code}} = Snex.pyeval(inp, code)
        assert code in [:interpreter_exited, :internal_error]
        assert_receive {:EXIT, ^inp, %Error{code: ^code}}, 60_000
      end)
    end

    test "os._exit" do
      bystander = start_interpreter!()

      feed(bystander, 5, fn ->
        inp = start_with_frames!()

        assert {:error, %Error{code: :interpreter_exited, reason: {:exit_status, 3}}} =
                 Snex.pyeval(inp, "os._exit(3)")

        assert_receive {:EXIT, ^inp, %Error{reason: {:exit_status, 3}}}, 60_000
      end)
    end
  end

  # Linked: the tests trap exits.
  defp start_with_frames! do
    {:ok, inp} = Interpreter.start_link(init_script: @frames)
    inp
  end

  @neighbours 4
  # Bytes by which memory may differ between two times that nothing goes on. One leaked binary of the larger rows is more.
  @slack 16 * 1024 * 1024

  # Runs the row again and again while neighbours use the same interpreter. Each gets its own answers, and afterwards
  # everything is as it was.
  defp feed(inp, rounds \\ 20, row) do
    # What is loaded and cached the first time is no leak.
    beside_neighbours(inp, 2, row)
    before = Figures.rest!([inp])
    beside_neighbours(inp, rounds, row)
    Figures.assert_same(before, Figures.settle(before, [inp]), @slack)
    refute_received _
  end

  defp beside_neighbours(inp, rounds, row) do
    neighbours = for number <- 1..@neighbours, do: Task.async(fn -> neighbour(inp, number) end)
    for neighbour <- neighbours, do: assert_answers(neighbour)
    for _ <- 1..rounds, do: row.()
    for neighbour <- neighbours, do: assert_answers(neighbour)
    for neighbour <- neighbours, do: send(neighbour.pid, :stop)
    Task.await_many(neighbours, 60_000)
    for %{pid: pid} <- neighbours, do: assert_receive({:EXIT, ^pid, :normal}, 60_000)
  end

  # A neighbour that is asked now answers after a call that has begun since.
  defp assert_answers(neighbour) do
    send(neighbour.pid, {:answered?, self()})
    assert_receive {:answered, pid} when pid == neighbour.pid, 60_000
  end

  defp neighbour(inp, number) do
    env = Snex.make_env!(inp, %{"number" => number, "round" => 0})
    go_on(env, number, 1)
    Snex.destroy_env(env)
  end

  defp go_on(env, number, round) do
    code = "import asyncio; round += 1; await asyncio.sleep(0.001); return (number, round)"
    {:ok, {^number, ^round}} = Snex.pyeval(env, code, timeout: 60_000)

    receive do
      {:answered?, who} ->
        {:ok, ^number} = Snex.pyeval(env, "return number", timeout: 60_000)
        send(who, {:answered, self()})
        go_on(env, number, round + 1)

      :stop ->
        :ok
    after
      0 -> go_on(env, number, round + 1)
    end
  end
end
