defmodule Snex.SharedMemoryTest do
  # Not async: it looks at the descriptors of this VM.
  use Snex.Case

  alias Snex.ProcessTree

  @moduletag timeout: 300_000
  @moduletag skip: if(:os.type() != {:unix, :linux}, do: "there is no shared memory")

  @mib 1024 * 1024

  # Sums what it gets without keeping it.
  @sum "return sum(x[::4096])"

  defp view(bytes, byte \\ 7), do: Serde.binary(:binary.copy(<<byte>>, bytes), :memoryview)

  defp shared(inp), do: Interpreter.info(inp).shared_memory

  # How many slots with so many bytes there are. Each may have 64 KiB more.
  defp slots(inp, bytes), do: div(shared(inp), bytes)

  # What the VM's own descriptors of memory files hold, in bytes.
  defp memory_files do
    for fd <- File.ls!("/proc/self/fd"),
        {:ok, target} <- [File.read_link("/proc/self/fd/#{fd}")],
        target =~ "memfd:snex" do
      {blocks, 0} = System.cmd("stat", ["-L", "-c", "%b", "/proc/#{System.pid()}/fd/#{fd}"])
      512 * (blocks |> String.trim() |> String.to_integer())
    end
  end

  defp backed, do: Enum.sum(memory_files())

  test "values arrive as they are, from any place in memory to any other" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "import ctypes, hashlib")
    bytes = :crypto.strong_rand_bytes(3 * @mib)

    for skip <- [0, 1, 4, 8, 23, 56, 63, 64], length <- [300_000, 2 * @mib + 1] do
      part = binary_part(bytes, skip, length)
      hash = :crypto.hash(:sha256, part)
      array = Snex.Array.new(part, {:u, 8}, {length})

      # Numbers have to be aligned.
      code = """
      address = ctypes.addressof(ctypes.c_char.from_buffer(x))
      return hashlib.sha256(x).digest(), address % 8, bytes(x[-9:])
      """

      assert Snex.pyeval(env, code, %{"x" => array}) == {:ok, {hash, 0, binary_part(part, length - 9, 9)}}
      assert Snex.pyeval(env, "return bytearray(x)") == {:ok, part}

      assert {:ok, %{"one" => ^part, "other" => [1, ^part]}} =
               Snex.pyeval(env, "x = memoryview(x); return {'one': x, 'other': [1, bytearray(x)]}")
    end
  end

  describe "towards Python" do
    test "a view lies in shared memory for as long as somebody in Python looks at it" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      assert shared(inp) == 0

      assert {:ok, true} =
               Snex.pyeval(env, "return x.readonly and bytes(x) == b'\\x07' * len(x)", %{"x" => view(@mib)})

      assert slots(inp, @mib) == 1
      assert {:ok, nil} = Snex.pyeval(env, "y = x[1:]; del x")
      assert slots(inp, @mib) == 1
      assert {:ok, nil} = Snex.pyeval(env, "del y")
      eventually(fn -> shared(inp) == 0 end)
    end

    test "an array is that memory itself; what Python writes to it, Python alone sees" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      array = Snex.Array.new(:binary.copy(<<7>>, @mib), {:u, 8}, {@mib})

      assert Snex.pyeval(env, "first = x; x[0] = 9; return x[0], x[1]", %{"x" => array}) == {:ok, {9, 7}}
      assert slots(inp, @mib) == 1
      {:ok, data} = Snex.pyeval(env, "x[0] = 7; return x")
      assert data == array.data
      assert {:ok, nil} = Snex.pyeval(env, "first[:] = bytes(len(first)); del x, first")
      eventually(fn -> shared(inp) == 0 end)
      assert Snex.pyeval(env, "return x[0]", %{"x" => array}) == {:ok, 7}
    end

    test "what becomes an object of Python's own is copied, and takes no shared memory" do
      inp = start_interpreter!()
      binary = :binary.copy("käse", 300_000)
      {:ok, env} = Snex.make_env(inp)

      for {type, as} <- [bytes: "bytes", str: "str", bytearray: "bytearray"] do
        code = "return type(x).__name__, len(x), x[-4:] in ('käse', 'käse'.encode()[-4:])"
        length = if type == :str, do: 1_200_000, else: byte_size(binary)
        assert Snex.pyeval(env, code, %{"x" => Serde.binary(binary, type)}) == {:ok, {as, length, true}}
      end

      eventually(fn -> shared(inp) == 0 end)
    end

    test "large terms are loaded from there, and take none of it afterwards" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp, %{})
      ints = Enum.to_list(1..400_000)
      maps = for n <- 1..40_000, do: %{"n" => n, "text" => "text number #{n}", "list" => [n, nil, 1.5]}
      large = view(@mib)

      assert Snex.pyeval(env, "return x == list(range(1, 400_001))", %{"x" => ints}) == {:ok, true}
      assert Snex.pyeval(env, "return x", %{"x" => maps}) == {:ok, maps}

      assert {:ok, {400_000, @mib, ^maps}} =
               Snex.pyeval(env, "return len(x), len(y), z", %{"x" => ints, "y" => large, "z" => maps})

      # Also those of other requests, and of answers to Python.
      assert Snex.call(env, "len", [ints]) == {:ok, 400_000}
      assert {:ok, _env} = Snex.make_env(inp, %{"x" => ints})

      assert Snex.pyeval(
               env,
               "import snex; return await snex.call('Elixir.Enum', 'to_list', [range(400_000)])"
             )
             |> elem(1) == Enum.to_list(0..399_999)

      assert {:error, error} = Snex.pyeval(env, "return x", %{"x" => [ints, %{"a" => <<255>>}]})
      assert error.reason =~ "in the variable x[1]['a']"
      assert {:ok, nil} = Snex.pyeval(env, "del x, y, z")
      eventually(fn -> shared(inp) == 0 end)
    end

    test "text that is not UTF-8 is an error of that call, and frees its memory" do
      inp = start_interpreter!()

      {:error, error} =
        Snex.pyeval(inp, "return 1", %{"x" => Serde.binary(:binary.copy(<<255>>, @mib), :str)})

      assert error.exception.type == "UnicodeDecodeError"
      eventually(fn -> shared(inp) == 0 end)
    end

    test "what Elixir returns to Python comes the same way" do
      inp = start_interpreter!(encoding_opts: [binary_as: :memoryview])
      code = "x = await Elixir.String.duplicate('x', 1 << 20); return type(x).__name__, len(x)"
      assert Snex.pyeval(inp, code) == {:ok, {"memoryview", @mib}}
    end

    test "slots are used again, and their memory goes back once nobody needs it" do
      inp = start_interpreter!()
      for _ <- 1..50, do: assert({:ok, 7168} = Snex.pyeval(inp, @sum, %{"x" => view(4 * @mib)}))
      # Python may not have got round to say that one is free before the next came.
      assert backed() <= 12 * @mib
      eventually(fn -> backed() == 0 end)
      assert {:ok, 7168} = Snex.pyeval(inp, @sum, %{"x" => view(4 * @mib)})
    end

    test "many at once, of many sizes, arrive as they were sent" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      {:ok, nil} = Snex.pyeval(env, "kept = []")

      1..200
      |> Task.async_stream(
        fn n ->
          length = 200_000 + rem(n * 7919, 1_000_000)
          keep = if rem(n, 3) == 0, do: "kept.append(x)\n", else: ""
          code = keep <> "return bytes(x)"
          value = :binary.copy(<<n>>, length)

          assert Snex.pyeval(env, code, %{"x" => Serde.binary(value, :memoryview)}, timeout: 60_000) ==
                   {:ok, value}
        end,
        max_concurrency: 16,
        timeout: 120_000
      )
      |> Stream.run()

      assert Snex.pyeval(env, "return all(len(set(bytes(x))) == 1 for x in kept)") == {:ok, true}
      assert {:ok, nil} = Snex.pyeval(env, "kept.clear(); del x")
      eventually(fn -> shared(inp) == 0 end)
    end

    test "a call that is cancelled before it has begun leaves no memory behind" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      test = self()

      blocked =
        Task.async(fn ->
          Snex.pyeval(env, "import time; await snex.send(test, 'now'); time.sleep(1)", %{"test" => test})
        end)

      assert_receive "now", 60_000

      for _ <- 1..5 do
        assert {:error, %Error{code: :response_timeout}} =
                 Snex.pyeval(env, "kept = x", %{"x" => view(@mib)}, timeout: 1)
      end

      assert {:ok, nil} = Task.await(blocked, 60_000)
      eventually(fn -> shared(inp) == 0 end)
      assert {:error, _} = Snex.pyeval(env, "kept")
    end

    test "a caller that is killed while its value is copied disturbs nobody" do
      inp = start_interpreter!()

      for n <- 1..20 do
        caller = spawn(fn -> Snex.pyeval(inp, @sum, %{"x" => view(16 * @mib)}) end)
        for _ <- 1..n, do: :erlang.yield()
        Process.exit(caller, :kill)
        assert {:ok, 1792} = Snex.pyeval(inp, @sum, %{"x" => view(@mib)}, timeout: 60_000)
      end

      eventually(fn -> shared(inp) == 0 end)
    end
  end

  describe "from Python" do
    test "results, messages, arguments of calls and items of streams" do
      inp = start_interpreter!()
      mib = :binary.copy(<<0>>, @mib)
      assert Snex.pyeval(inp, "return [bytes(1 << 20), 'x', bytes(1 << 20)]") == {:ok, [mib, "x", mib]}
      assert {:ok, nil} = Snex.pyeval(inp, "await snex.send(me, bytes(1 << 20))", %{"me" => self()})
      assert_receive ^mib, 60_000
      assert Snex.pyeval(inp, "return await Elixir.Kernel.byte_size(bytes(1 << 20))") == {:ok, @mib}

      assert inp |> Snex.stream("for _ in range(5): yield bytes(1 << 20)") |> Enum.to_list() ==
               List.duplicate(mib, 5)

      eventually(fn -> backed() == 0 end)
    end

    test "what a request has printed comes before its large result" do
      inp = start_interpreter!(output: self())
      assert {:ok, <<0, _::binary>>} = Snex.pyeval(inp, "print('first'); return bytes(1 << 20)")
      assert_received {:snex_output, ^inp, :stdout, "first\n"}
    end

    test "many at once, from threads as well, arrive as they were returned" do
      inp = start_interpreter!()

      1..200
      |> Task.async_stream(
        fn n ->
          length = 200_000 + rem(n * 7919, 1_000_000)
          run = if rem(n, 2) == 0, do: :thread, else: :loop

          result =
            Snex.pyeval(inp, "return bytes([n]) * length", %{"n" => n, "length" => length},
              run: run,
              timeout: 60_000
            )

          assert result == {:ok, :binary.copy(<<n>>, length)}
        end,
        max_concurrency: 16,
        timeout: 120_000
      )
      |> Stream.run()
    end

    test "objects in a large result are handles" do
      inp = start_interpreter!()

      assert {:ok, [%Snex.Object{}, <<0, _::binary>>]} =
               Snex.call(inp, "eval", ["[object(), bytes(1 << 20)]"])
    end

    test "the limit of a reply holds" do
      inp = start_interpreter!(limits: [reply: @mib])
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return bytes(1 << 21)")
      assert reason =~ "too large for Elixir"
      assert {:ok, <<0, _::binary>>} = Snex.pyeval(inp, "return bytes(1 << 19)")
    end
  end

  describe "without it" do
    test "the option shared_memory: false leaves everything to the pipes" do
      inp = start_interpreter!(shared_memory: false)
      before = length(memory_files())
      assert shared(inp) == nil
      assert {:ok, value} = Snex.pyeval(inp, "return bytes(x)", %{"x" => view(@mib)})
      assert value == :binary.copy(<<7>>, @mib)
      assert length(memory_files()) == before
    end

    test "with :use_stdio everything goes through the pipes" do
      inp = start_interpreter!(port_opts: [:use_stdio])
      assert shared(inp) == nil
      assert {:ok, value} = Snex.pyeval(inp, "return bytes(x)", %{"x" => view(@mib)})
      assert value == :binary.copy(<<7>>, @mib)
    end

    test "a program that closes the descriptors before it starts Python" do
      wrap = fn python, args -> {"/bin/sh", ["-c", "exec 7>&- 8>&-; exec \"$@\"", "sh", python | args]} end
      inp = start_interpreter!(wrap_exec: wrap)
      assert shared(inp) == nil
      assert {:ok, value} = Snex.pyeval(inp, "return bytes(x)", %{"x" => view(@mib)})
      assert value == :binary.copy(<<7>>, @mib)
    end

    test "what has no room in it goes through the pipe" do
      # 16 MiB of shared memory in each direction.
      inp = start_interpreter!(limits: [memory: 256 * @mib])
      {:ok, env} = Snex.make_env(inp, %{})
      {:ok, nil} = Snex.pyeval(env, "kept = []")

      for n <- 1..12 do
        assert Snex.pyeval(env, "kept.append(x); return sum(x[::4096])", %{"x" => view(3 * @mib, n)}) ==
                 {:ok, 768 * n}
      end

      assert slots(inp, 3 * @mib) == 5
      assert Snex.pyeval(env, "return [x[-1] for x in kept]") == {:ok, Enum.to_list(1..12)}
      assert {:ok, 17_408} = Snex.pyeval(env, @sum, %{"x" => view(17 * @mib, 4)})
      assert {:ok, value} = Snex.pyeval(env, "return bytes(17 << 20)")
      assert byte_size(value) == 17 * @mib
      assert {:ok, nil} = Snex.pyeval(env, "kept.clear(); del x")
      eventually(fn -> shared(inp) == 0 end)
    end

    test "more views than Python has descriptors" do
      inp = start_interpreter!(limits: [open_files: 32])
      {:ok, env} = Snex.make_env(inp, %{})
      {:ok, nil} = Snex.pyeval(env, "kept = []")

      for n <- 1..40,
          do: assert({:ok, nil} = Snex.pyeval(env, "kept.append(x)", %{"x" => view(div(@mib, 4), n)}))

      assert Snex.pyeval(env, "return [x[-1] for x in kept]") == {:ok, Enum.to_list(1..40)}
    end
  end

  describe "the end" do
    test "of a Python that is killed with views in hand gives all memory back, though a child has the descriptors" do
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link(python: elem(hd(pythons()), 1))
      {:ok, env} = Snex.make_env(inp)

      code = """
      import os
      child = os.fork()
      if child == 0:
          os.setsid()
          for fd in (3, 4, 5, 6):
              os.close(fd)
          while True:
              os.read(0, 1) or __import__('time').sleep(1000)
      """

      {:ok, nil} = Snex.pyeval(env, "kept = x", %{"x" => view(16 * @mib)})
      {:ok, nil} = Snex.pyeval(env, code)
      assert backed() >= 16 * @mib
      tree = ProcessTree.watch([Interpreter.os_pid(inp)])
      {_, 0} = System.cmd("kill", ["-KILL", to_string(Interpreter.os_pid(inp))])
      assert_receive {:EXIT, ^inp, _}, 60_000
      ProcessTree.await_end(tree)
      eventually(fn -> memory_files() == [] end)
    end

    test "interpreters leave no descriptors behind" do
      use_one = fn ->
        inp = start_supervised!({Interpreter, []}, id: :one)
        {:ok, _} = Snex.pyeval(inp, "return bytes(x)", %{"x" => view(@mib)})
        stop_supervised!(:one)
      end

      use_one.()
      eventually(fn -> memory_files() == [] end)
      before = length(File.ls!("/proc/self/fd"))
      for _ <- 1..20, do: use_one.()
      eventually(fn -> length(File.ls!("/proc/self/fd")) <= before end)
    end
  end
end
