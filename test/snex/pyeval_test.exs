defmodule Snex.PyevalTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  describe "the arguments" do
    test "code, vars and opts may each be left out, in every combination", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, "x = 1") == {:ok, nil}
      assert Snex.pyeval(env, %{"y" => 2}) == {:ok, nil}
      assert Snex.pyeval(env, timeout: 1000) == {:ok, nil}
      assert Snex.pyeval(env, "return x + y + z", %{"z" => 3}) == {:ok, 6}
      assert Snex.pyeval(env, "return x + y + z", timeout: 1000) == {:ok, 6}
      assert Snex.pyeval(env, %{"z" => 4}, timeout: 1000) == {:ok, nil}
      assert Snex.pyeval(env, nil, %{"y" => 3}, []) == {:ok, nil}
      assert Snex.pyeval(env, "return x + y + z", %{}, timeout: 1000) == {:ok, 8}
    end

    test "code is a string, a Snex.Code with a string or iodata in it, or nil", %{inp: inp} do
      assert Snex.pyeval(inp, "return 6 * 7") == {:ok, 42}
      assert Snex.pyeval(inp, %Snex.Code{src: "return 6 * 7"}) == {:ok, 42}
      assert Snex.pyeval(inp, %Snex.Code{src: ["return ", [?6, " * " | "7"]]}) == {:ok, 42}
      assert Snex.pyeval(inp, nil) == {:ok, nil}
    end

    test "vars are set before the code runs, and stay in the environment", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp, %{"x" => 0})
      assert Snex.pyeval(env, "return x", %{"x" => 1}) == {:ok, 1}
      assert Snex.pyeval(env, "x += 1; return x") == {:ok, 2}
      assert {:error, _} = Snex.pyeval(env, "raise RuntimeError(x)", %{"x" => 10})
      assert Snex.pyeval(env, "return x") == {:ok, 10}
    end

    test "vars that are not a map with string keys raise ArgumentError", %{inp: inp} do
      for {vars, message} <- [
            {%{x: 1}, ~r/have to be strings in UTF-8, got: :x/},
            {%{1 => 1}, ~r/have to be strings in UTF-8, got: 1/},
            {%{"ok" => 1, <<0xFF>> => 1}, ~r/have to be strings in UTF-8, got: <<255>>/},
            {~D[2026-01-01], ~r/a map with string keys, got: a struct of Date/},
            {:x, ~r/a map with string keys, got: :x/},
            {"x", ~r/a map with string keys, got: "x"/},
            {[{"x", 1}], ~r/a map with string keys, got a list/}
          ] do
        assert_raise ArgumentError, message, fn -> Snex.pyeval(inp, "return 1", vars, []) end
      end

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "that make no sense raise ArgumentError, which names them", %{inp: inp} do
      assert_raise ArgumentError, ~r/unknown option :a; known are :encoding_opts, :on_timeout, /, fn ->
        Snex.pyeval(inp, "1", a: 1)
      end

      assert_raise ArgumentError,
                   "unknown option :timout, did you mean :timeout? (for a variable, write %{\"timout\" => ...})",
                   fn ->
                     Snex.pyeval(inp, "1", timout: 1)
                   end

      assert_raise ArgumentError, ~r/got: 17/, fn -> Snex.pyeval(inp, 17) end

      assert_raise ArgumentError, ~r/keyword list of options, got: \[1\]/, fn ->
        Snex.pyeval(inp, "1", [1])
      end

      assert_raise ArgumentError, ~r/an environment or an interpreter.*got: 17/, fn ->
        Snex.pyeval(17, "1")
      end

      assert_raise ArgumentError, ~r/option :timeout cannot be -1: expected milliseconds/, fn ->
        Snex.pyeval(inp, "1", timeout: -1)
      end

      assert_raise ArgumentError, ~r/option :on_timeout cannot be :stay: expected :cancel or :leave/, fn ->
        Snex.pyeval(inp, "1", on_timeout: :stay)
      end

      assert_raise ArgumentError, ~r/:binary_as of :encoding_opts cannot be :text/, fn ->
        Snex.pyeval(inp, "1", encoding_opts: [binary_as: :text])
      end

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "the option encoding_opts says what the call's vars become", %{inp: inp} do
      code = "return type(b).__name__, type(s).__name__"
      vars = %{"b" => "text", "s" => MapSet.new()}
      assert Snex.pyeval(inp, code, vars) == {:ok, {"str", "set"}}

      assert Snex.pyeval(inp, code, vars, encoding_opts: [binary_as: :bytes, set_as: :frozenset]) ==
               {:ok, {"bytes", "frozenset"}}

      assert Snex.pyeval(inp, code, vars) == {:ok, {"str", "set"}}
    end
  end

  describe "given an interpreter" do
    test "takes its pid, name, {name, node}, {:via, module, name} or {:global, name}" do
      for {server, pid} <- start_named_interpreters!() do
        assert Snex.pyeval(server, "import os; return os.getpid()") == {:ok, Interpreter.os_pid(pid)}
      end
    end

    test "runs the code in a fresh copy of the root environment, which is dropped afterwards" do
      inp =
        start_interpreter!(
          init_script: """
          import gc, weakref

          class Mark:
              pass

          marks = weakref.WeakSet()
          root = 1
          """
        )

      assert Snex.pyeval(inp, "root += 1; mine = Mark(); marks.add(mine); return root, len(marks)") ==
               {:ok, {2, 1}}

      assert Snex.pyeval(inp, "return root, 'mine' in globals()") == {:ok, {1, false}}
      eventually(fn -> Snex.pyeval(inp, "gc.collect(); return len(marks)") == {:ok, 0} end)
      assert Interpreter.info(inp).environments == 0
    end

    test "that is none, the error is :call_failed with the reason :noproc" do
      for nobody <- [
            :nobody_here,
            self(),
            {:nobody_here, node()},
            {:global, :nobody_here},
            {:via, :global, :nobody_here},
            spawn(fn -> :ok end)
          ] do
        assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(nobody, "return 1")
      end
    end
  end

  describe "return" do
    test "works inside of if, for, while, try, with, async with and async for, also early", %{inp: inp} do
      managers = """
      import contextlib

      @contextlib.asynccontextmanager
      async def resource():
          yield

      async def numbers():
          yield 1
      """

      for code <- [
            "if True:\n    return 1\nreturn 2",
            "for i in range(10):\n    return 1\nreturn 2",
            "while True:\n    return 1\nreturn 2",
            "try:\n    return 1\nexcept ValueError:\n    return 2",
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    return 1\nreturn 2",
            "try:\n    pass\nexcept ValueError:\n    return 2\nelse:\n    return 1",
            "with contextlib.nullcontext():\n    return 1\nreturn 2",
            "async with resource():\n    return 1\nreturn 2",
            "async for n in numbers():\n    return n\nreturn 2",
            "return 1\nreturn 2"
          ] do
        assert {code, Snex.pyeval(inp, managers <> code)} == {code, {:ok, 1}}
      end
    end

    test "that is missing or not reached, or has no value: nil", %{inp: inp} do
      for code <- ["", "x = 1", "1", "if False:\n    return 1", "return", "return None"] do
        assert {code, Snex.pyeval(inp, code)} == {code, {:ok, nil}}
      end
    end

    test "is a true return: no except, not even a bare one, and no suppress catches it", %{inp: inp} do
      for code <- [
            "try:\n    return 1\nexcept BaseException:\n    return 2",
            "try:\n    return 1\nexcept:\n    pass\nreturn 2",
            "import contextlib\nwith contextlib.suppress(BaseException):\n    return 1\nreturn 2",
            "import asyncio\ntry:\n    await asyncio.sleep(0)\n    return 1\nexcept:\n    pass\nreturn 2"
          ] do
        assert {code, Snex.pyeval(inp, code)} == {code, {:ok, 1}}
      end
    end

    test "inside of a nested def, lambda or class keeps its own meaning", %{inp: inp} do
      code = """
      def outer():
          def inner():
              return 1
          inner()
          return 2

      class Thing:
          def method(self):
              return 3

      async def later():
          return 4

      return outer(), Thing().method(), (lambda: 5)(), await later(), 6
      """

      assert Snex.pyeval(inp, code) == {:ok, {2, 3, 5, 4, 6}}
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "class Thing:\n    return 1")
      assert reason =~ "'return' outside function"
    end

    test "runs finally blocks", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, "try:\n    return 1\nfinally:\n    seen = True") == {:ok, 1}
      assert Snex.pyeval(env, "return seen") == {:ok, true}
    end
  end

  describe "await" do
    test "works at the top level, and so do async for and async with", %{inp: inp} do
      code = """
      import asyncio

      class Resource:
          async def __aenter__(self):
              await asyncio.sleep(0)
              return "entered"
          async def __aexit__(self, *exc):
              await asyncio.sleep(0)

      async def numbers():
          for n in range(3):
              await asyncio.sleep(0)
              yield n

      seen = []
      async for n in numbers():
          seen.append(n)
      async with Resource() as entered:
          return seen, entered, await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
      """

      assert Snex.pyeval(inp, code) == {:ok, {[0, 1, 2], "entered", [1, 2]}}
    end

    test "lets calls of many processes run at once, each with its own answer", %{inp: inp} do
      code = "import asyncio; await asyncio.sleep(0); return n"

      results =
        1..500
        |> Task.async_stream(&{&1, Snex.pyeval(inp, code, %{"n" => &1})}, max_concurrency: 50)
        |> Enum.map(fn {:ok, pair} -> pair end)

      assert Enum.all?(results, fn {n, result} -> result == {:ok, n} end)
    end
  end

  describe "an error" do
    test "whatever the code raises is that of the one call", %{inp: inp} do
      for raised <- ~w[SystemExit(3) KeyboardInterrupt() GeneratorExit() MemoryError() BaseException("x")] do
        assert {:error, %Error{code: :python_runtime_error} = error} = Snex.pyeval(inp, "raise #{raised}")
        assert raised =~ error.exception.type
      end

      assert {:error, %Error{exception: %{type: "SystemExit"}}} = Snex.pyeval(inp, "import sys; sys.exit(3)")

      assert {:error, %Error{exception: %{type: "CancelledError"}}} =
               Snex.pyeval(inp, "import asyncio; raise asyncio.CancelledError()")

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end
  end

  describe "pyeval!" do
    test "returns the value, in every combination of arguments", %{inp: inp} do
      env = Snex.make_env!(inp)
      assert Snex.pyeval!(env, "x = 1") == nil
      assert Snex.pyeval!(env, %{"y" => 2}) == nil
      assert Snex.pyeval!(env, timeout: 60_000) == nil
      assert Snex.pyeval!(env, "return x + y + z", %{"z" => 3}) == 6
      assert Snex.pyeval!(env, "return x + y + z", timeout: 60_000) == 6
      assert Snex.pyeval!(env, %{"z" => 4}, timeout: 60_000) == nil
      assert Snex.pyeval!(env, "return x + y + z", %{}, timeout: 60_000) == 7
    end

    test "raises Snex.Error, and ArgumentError as ever", %{inp: inp} do
      assert_raise Error, ~r/ValueError: no good/, fn -> Snex.pyeval!(inp, "raise ValueError('no good')") end

      endless = "import asyncio; await asyncio.Event().wait()"
      error = catch_error(Snex.pyeval!(inp, endless, timeout: 10))
      assert %Error{code: :response_timeout} = error

      assert_raise Error, ~r/no interpreter is named :nobody_here. Start one/, fn ->
        Snex.pyeval!(:nobody_here, "return 1")
      end

      assert_raise ArgumentError, fn -> Snex.pyeval!(inp, 17) end
    end
  end
end
