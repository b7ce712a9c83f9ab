defmodule SnexTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  doctest Snex

  describe "pyeval" do
    @describetag :interpreter

    test "takes code, vars and opts in every combination", %{inp: inp} do
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

    test "given an interpreter, leaves nothing behind", %{inp: inp} do
      assert Snex.pyeval(inp, "leftover = 1") == {:ok, nil}
      assert Snex.pyeval(inp, "return 'leftover' in globals()") == {:ok, false}
    end

    test "returns from anywhere at the top level, past any except", %{inp: inp} do
      for code <- [
            "if True:\n    return 1\nreturn 2",
            "for i in range(10):\n    return 1\nreturn 2",
            "try:\n    return 1\nexcept BaseException:\n    return 2",
            "try:\n    return 1\nexcept:\n    pass\nreturn 2",
            "import contextlib\nwith contextlib.suppress(BaseException):\n    return 1\nreturn 2"
          ] do
        assert {code, Snex.pyeval(inp, code)} == {code, {:ok, 1}}
      end
    end

    test "runs finally blocks on return", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, "try:\n    return 1\nfinally:\n    seen = True") == {:ok, 1}
      assert Snex.pyeval(env, "return seen") == {:ok, true}
    end

    test "awaits at the top level, in every form", %{inp: inp} do
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

    test "runs calls of many processes at once, each with its own answer", %{inp: inp} do
      code = "import asyncio; await asyncio.sleep(0); return n"

      results =
        1..500
        |> Task.async_stream(&{&1, Snex.pyeval(inp, code, %{"n" => &1})}, max_concurrency: 50)
        |> Enum.map(fn {:ok, pair} -> pair end)

      assert Enum.all?(results, fn {n, result} -> result == {:ok, n} end)
    end

    test "reports an exception with reason, traceback and details", %{inp: inp} do
      code = "def fail():\n    raise ValueError('no good')\nfail()"
      assert {:error, %Error{} = error} = Snex.pyeval(inp, code)
      assert %{code: :python_runtime_error, reason: "no good"} = error
      assert %{type: "ValueError", module: "builtins", notes: [], cause: nil} = error.exception
      assert hd(error.traceback) == "Traceback (most recent call last):\n"
      assert Enum.any?(error.traceback, &(&1 =~ ~s[File "<Snex.Code>", line 3, in <module>\n    fail()]))
      assert List.last(error.traceback) == "ValueError: no good\n"
      assert Exception.message(error) =~ "ValueError: no good\n\nTraceback"
    end

    test "reports a syntax error with file and line", %{inp: inp} do
      code = %Snex.Code{src: "x = 1\ny = = 2", file: "/app/lib/mine.ex", line: 40}
      assert {:error, error} = Snex.pyeval(inp, code)
      assert error.exception.type == "SyntaxError"
      assert Enum.join(error.traceback) =~ ~s(File "/app/lib/mine.ex", line 41)
    end

    test "survives whatever the code raises", %{inp: inp} do
      for raised <- ~w[SystemExit(3) KeyboardInterrupt() GeneratorExit() MemoryError() BaseException("x")] do
        assert {:error, %Error{code: :python_runtime_error} = error} = Snex.pyeval(inp, "raise #{raised}")
        assert raised =~ error.exception.type
      end

      assert {:error, %Error{exception: %{type: "SystemExit"}}} = Snex.pyeval(inp, "import sys; sys.exit(3)")

      assert {:error, %Error{exception: %{type: "CancelledError"}}} =
               Snex.pyeval(inp, "import asyncio; raise asyncio.CancelledError()")

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "fails alone when its result cannot be encoded", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return object()")
      assert error.exception.type == "TypeError"
      assert error.reason =~ "Cannot serialize object of <class 'object'>"
      assert {:error, %Error{}} = Snex.pyeval(inp, "x = []; x.append(x); return x")
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "fails alone when a binary is no text, and says where", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => "abc" <> <<0xFF>>})
      assert error.exception.type == "UnicodeDecodeError"
      assert error.reason =~ "position 3"

      assert {:error, error} =
               Snex.pyeval(inp, "return x", %{"x" => String.duplicate("a", 100_000) <> <<0xFF>>})

      assert error.reason =~ "position 100000"
      assert Snex.pyeval(inp, "return x", %{"x" => Serde.binary(<<0xFF>>)}) == {:ok, <<0xFF>>}
    end

    test "fails alone when a key is not hashable in Python", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => %{[1] => 2}})
      assert error.exception.type == "TypeError"
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "times out, cancels the work, and leaves no message", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)

      code = """
      import asyncio
      try:
          started.set()
          await asyncio.Event().wait()
      finally:
          cancelled.set()
      """

      Snex.pyeval(env, "import asyncio; started = asyncio.Event(); cancelled = asyncio.Event()")
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, timeout: 1_000)
      assert Snex.pyeval(env, "await cancelled.wait(); return started.is_set()") == {:ok, true}
      refute_received _
    end

    test "a late answer reaches nobody", %{inp: inp} do
      # Blocks the loop, so that the answer comes long after the caller has given up.
      code = "import time; time.sleep(0.2); return 'late'"
      assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, code, timeout: 20)
      assert Snex.pyeval(inp, "return 'next'") == {:ok, "next"}
      refute_received _
    end

    test "an answer that comes just as the caller gives up leaves no message", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp, %{"pause" => 0.0009})
      {:ok, nil} = Snex.pyeval(env, "import time")

      for _ <- 1..500 do
        assert Snex.pyeval(env, "time.sleep(pause); return 1", timeout: 1) in [
                 {:ok, 1},
                 {:error, %Error{code: :response_timeout}}
               ]

        refute_received _
      end
    end

    test "a timeout of 0 gives up at once, also when the answer is quicker", %{inp: inp} do
      for _ <- 1..200 do
        assert Snex.pyeval(inp, "return 1", timeout: 0) in [
                 {:ok, 1},
                 {:error, %Error{code: :response_timeout}}
               ]
      end

      assert Snex.pyeval(inp, "return 2") == {:ok, 2}
      refute_received _
    end

    test "names what is wrong with its arguments", %{inp: inp} do
      assert_raise ArgumentError, ~r/string keys, got: \[a: 1\]|unknown option :a/, fn ->
        Snex.pyeval(inp, "1", a: 1)
      end

      assert_raise ArgumentError, ~r/have to be strings in UTF-8, got: :x/, fn ->
        Snex.pyeval(inp, "1", %{x: 1})
      end

      assert_raise ArgumentError, ~r/string keys, got: ~D/, fn -> Snex.pyeval(inp, "1", ~D[2026-01-01]) end
      assert_raise ArgumentError, ~r/got: 17/, fn -> Snex.pyeval(inp, 17) end

      assert_raise ArgumentError, ~r/keyword list of options, got: \[1\]/, fn ->
        Snex.pyeval(inp, "1", [1])
      end

      assert_raise ArgumentError, ~r/an environment or an interpreter.*got: 17/, fn ->
        Snex.pyeval(17, "1")
      end

      assert_raise ArgumentError, ~r/timeout.*got: -1/, fn -> Snex.pyeval(inp, "1", timeout: -1) end

      assert_raise ArgumentError, ~r/:binary_as.*got: :text/, fn ->
        Snex.pyeval(inp, "1", encoding_opts: [binary_as: :text])
      end

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "reaches an interpreter by every kind of name" do
      name = :"interpreter_#{System.unique_integer([:positive])}"
      pid = start_interpreter!(name: name)
      assert Snex.pyeval(name, "return 1") == {:ok, 1}
      assert Snex.pyeval({name, node()}, "return 1") == {:ok, 1}

      :global.register_name(name, pid)
      assert Snex.pyeval({:global, name}, "return 1") == {:ok, 1}
      assert Snex.pyeval({:via, :global, name}, "return 1") == {:ok, 1}
    end

    test "says so when there is no interpreter" do
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(:nobody_here, "return 1")
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(self(), "return 1")
    end
  end

  describe "pyeval!" do
    @describetag :interpreter

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

      assert_raise Error, ~r/no such interpreter/, fn -> Snex.pyeval!(:nobody_here, "return 1") end
      assert_raise ArgumentError, fn -> Snex.pyeval!(inp, 17) end
    end
  end

  describe "make_env!" do
    @describetag :interpreter

    test "returns the environment, in every combination of arguments", %{inp: inp} do
      assert %Snex.Env{} = Snex.make_env!(inp)
      assert %Snex.Env{} = a = Snex.make_env!(inp, %{"a" => 1})
      assert %Snex.Env{} = b = Snex.make_env!(inp, from: a)
      assert %Snex.Env{} = c = Snex.make_env!(inp, %{"b" => 2}, from: b)
      assert %Snex.Env{} = Snex.make_env!(from: c)
      assert %Snex.Env{} = d = Snex.make_env!(%{"c" => 3}, from: c)
      assert Snex.pyeval!(d, "return (a, b, c)") == {1, 2, 3}
    end

    test "raises Snex.Error", %{inp: inp} do
      env = Snex.make_env!(inp)
      assert_raise Error, ~r/missing/, fn -> Snex.make_env!(from: {env, only: ["missing"]}) end
      assert_raise Error, ~r/no such interpreter/, fn -> Snex.make_env!(:nobody_here) end
    end
  end

  describe ":returning" do
    @describetag :interpreter

    # The calls are in one place each; what they print to standard error is of no interest here.
    defp returning(inp, code, returning, vars \\ %{}) do
      with_io(:stderr, fn -> Snex.pyeval(inp, code, vars, returning: returning) end) |> elem(0)
    end

    test "returns the value of an expression, or a list of values", %{inp: inp} do
      assert returning(inp, "x = 1", "x") == {:ok, 1}
      assert returning(inp, "x = 1", ["x", "x + 1"]) == {:ok, [1, 2]}
      assert returning(inp, "x = 1", []) == {:ok, []}
      assert returning(inp, nil, "x", %{"x" => 1}) == {:ok, 1}
      assert returning(inp, "import asyncio", "await asyncio.sleep(0, 'slept')") == {:ok, "slept"}
    end

    test "keeps what the code itself returns", %{inp: inp} do
      assert returning(inp, "return 1", "2") == {:ok, 1}
      assert returning(inp, "if x: return 1", "2", %{"x" => true}) == {:ok, 1}
      assert returning(inp, "if x: return 1", "2", %{"x" => false}) == {:ok, 2}
    end

    test "takes code and expressions that end in any way", %{inp: inp} do
      for code <- [
            "x = 1 # one",
            "x = 1\n\n",
            "x = 1;",
            "if True:\n    x = 1",
            "if True:\n    x = 1\n    # one\n",
            "x = 1\ny = \"\"\"\n    more\n\"\"\"",
            "x = (\n  1\n)",
            "def f():\n    return 2\nx = 1"
          ] do
        assert {code, returning(inp, code, "x")} == {code, {:ok, 1}}
      end

      assert returning(inp, "x = 1", "x # one") == {:ok, 1}
      assert returning(inp, "x = 1", ["x # one", "(x,\n  2)"]) == {:ok, [1, {1, 2}]}
      assert returning(inp, "x = 1", "x, 2") == {:ok, {1, 2}}
      assert returning(inp, "x = 1", ["x, 2"]) == {:ok, [{1, 2}]}
      assert returning(inp, %Snex.Code{src: ["x ", ["=", ?\s], "1"]}, "x") == {:ok, 1}
    end

    test "keeps the file and line of the code", %{inp: inp} do
      code = %Snex.Code{src: "x = 1\nx / 0", file: "/app/lib/mine.ex", line: 40}
      assert {:error, error} = returning(inp, code, "x")
      assert Enum.join(error.traceback) =~ ~s(File "/app/lib/mine.ex", line 41)
    end

    test "warns once for each place that it is used in", %{inp: inp} do
      one = fn -> Snex.pyeval(inp, "x = 1", returning: "x") |> then(& &1) end
      other = fn -> Snex.pyeval!(inp, "x = 2", returning: "x") |> then(& &1) end

      assert {{:ok, 1}, warning} = with_io(:stderr, one)
      assert warning =~ "the option :returning is deprecated"
      assert warning =~ Path.basename(__ENV__.file)
      assert with_io(:stderr, one) == {{:ok, 1}, ""}

      assert {2, warning} = with_io(:stderr, other)
      assert warning =~ "the option :returning is deprecated"
      assert with_io(:stderr, other) == {2, ""}
      assert with_io(:stderr, one) == {{:ok, 1}, ""}
    end

    test "names what it cannot be", %{inp: inp} do
      for wrong <- [:x, 17, ["x", :y], %{}] do
        assert_raise ArgumentError, ~r/expected :returning.*got: #{Regex.escape(inspect(wrong))}/, fn ->
          Snex.pyeval(inp, "x = 1", returning: wrong)
        end
      end
    end
  end

  test "each public function has an example, which runs as a doctest" do
    for module <- [Snex, Snex.Env] do
      {:docs_v1, _, :elixir, _, _, _, docs} = Code.fetch_docs(module)

      for {{:function, name, arity}, _, _, doc, _} <- docs, doc != :hidden do
        assert %{"en" => text} = doc, "#{inspect(module)}.#{name}/#{arity} has no documentation"
        assert text =~ "iex> ", "#{inspect(module)}.#{name}/#{arity} has no example"
      end
    end
  end

  describe "back-pressure" do
    test "callers wait while Python does not read, within their timeout, and go on when it does" do
      inp = start_interpreter!(port_opts: [busy_limits_port: {1_000, 10_000}])
      {:ok, env} = Snex.make_env(inp)
      payload = %{"x" => String.duplicate("x", 60_000)}
      test = self()

      # Python blocks until a line comes through this pipe.
      {:ok, {reader, writer}} = Snex.pyeval(env, "import os; r, w = os.pipe(); return r, w")

      blocked =
        Task.async(fn ->
          Snex.pyeval(
            env,
            "await snex.send(test, 'blocked'); os.read(r, 1); return 'unblocked'",
            %{"test" => test},
            timeout: :infinity
          )
        end)

      assert_receive "blocked", 60_000
      path = "/proc/#{Interpreter.os_pid(inp)}/fd/#{writer}"
      assert is_integer(reader)

      callers =
        for n <- 1..40 do
          Task.async(fn ->
            Snex.pyeval(inp, "return (n, len(x))", Map.put(payload, "n", n), timeout: :infinity)
          end)
        end

      # The pipe and the queue are full: who comes now waits, and gives up in time.
      eventually(fn ->
        Task.await(
          Task.async(fn ->
            result = Snex.pyeval(inp, "return 1", payload, timeout: 10)
            refute_received _
            result == {:error, %Error{code: :response_timeout}}
          end)
        )
      end)

      # The high-water mark, and as much as one request each of those who came just before it was reached.
      assert Interpreter.info(inp).queued <= 10_000 + 4 * 61_000
      File.write!(path, "x")
      assert Task.await(blocked, :infinity) == {:ok, "unblocked"}
      assert Enum.map(callers, &Task.await(&1, :infinity)) == for(n <- 1..40, do: {:ok, {n, 60_000}})
    end
  end

  describe "make_env" do
    @describetag :interpreter

    test "takes interpreter, vars and opts in every combination", %{inp: inp} do
      assert {:ok, env} = Snex.make_env(inp)
      assert {:ok, a} = Snex.make_env(inp, %{"a" => 1})
      assert {:ok, b} = Snex.make_env(inp, from: a)
      assert {:ok, c} = Snex.make_env(inp, %{"b" => 2}, from: a)
      assert {:ok, d} = Snex.make_env(from: c)
      assert {:ok, e} = Snex.make_env(%{"c" => 3}, from: c)
      assert Snex.pyeval(env, "return 'a' in globals()") == {:ok, false}
      assert Snex.pyeval(b, "return a") == {:ok, 1}
      assert Snex.pyeval(d, "return (a, b)") == {:ok, {1, 2}}
      assert Snex.pyeval(e, "return (a, b, c)") == {:ok, {1, 2, 3}}
    end

    test "copies from several environments, later ones over earlier ones, vars over all", %{inp: inp} do
      {:ok, one} = Snex.make_env(inp, %{"a" => 1, "b" => 1, "c" => 1, "d" => 1})
      {:ok, two} = Snex.make_env(inp, %{"b" => 2, "c" => 2, "x" => 2})
      {:ok, three} = Snex.make_env(inp, %{"c" => 3, "y" => 3})

      {:ok, env} =
        Snex.make_env(inp, %{"d" => 4}, from: [one, {two, only: ["b", "c"]}, {three, except: ["y"]}])

      assert Snex.pyeval(env, "return (a, b, c, d)") == {:ok, {1, 2, 3, 4}}
      assert Snex.pyeval(env, "return ('x' in globals(), 'y' in globals())") == {:ok, {false, false}}
    end

    test "copies are independent", %{inp: inp} do
      {:ok, one} = Snex.make_env(inp, %{"a" => 1})
      {:ok, two} = Snex.make_env(from: one)
      {:ok, nil} = Snex.pyeval(two, "a = 2")
      assert Snex.pyeval(one, "return a") == {:ok, 1}
    end

    test "names a key that is not there", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp, %{"a" => 1})

      assert {:error, %Error{code: :env_key_not_found} = error} =
               Snex.make_env(from: {env, only: ["missing"]})

      assert error.reason =~ "missing"
    end

    test "refuses environments of different interpreters, and both only and except", %{inp: inp} do
      other = start_interpreter!()
      {:ok, env} = Snex.make_env(other)
      assert_raise ArgumentError, ~r/#Snex.Env<1> belongs to/, fn -> Snex.make_env(inp, from: env) end

      assert_raise ArgumentError, ~r/expected :from to be/, fn ->
        Snex.make_env(from: {env, only: ["a"], except: ["b"]})
      end

      assert_raise ArgumentError, ~r/expected an interpreter, or the option :from/, fn ->
        Snex.make_env([])
      end
    end

    test "starts from what the init script left" do
      inp = start_interpreter!(init_script: {"y = 2 * x", %{"x" => 21}})
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, "return (x, y)") == {:ok, {21, 42}}
      assert Snex.pyeval(env, "y = 0; return y") == {:ok, 0}
      assert Snex.pyeval(inp, "return y") == {:ok, 42}
    end
  end

  describe "calls from Python" do
    @describetag :interpreter

    test "reach Elixir functions, also anonymous ones, and come back", %{inp: inp} do
      assert Snex.pyeval(inp, "return await Elixir.Enum.map([1, 2, 3], f)", %{"f" => &(&1 * 2)}) ==
               {:ok, [2, 4, 6]}

      assert Snex.pyeval(inp, "return await snex.call('erlang', 'node', [])") == {:ok, node()}
    end

    test "run at once", %{inp: inp} do
      code = "import asyncio; return await asyncio.gather(*[Elixir.Function.identity(n) for n in range(200)])"
      assert Snex.pyeval(inp, code) == {:ok, Enum.to_list(0..199)}
    end

    test "raise in Python what fails in Elixir", %{inp: inp} do
      code =
        "try:\n    await Elixir.String.upcase(1)\nexcept snex.ElixirError as e:\n    return (e.kind, str(e))"

      assert {:ok, {"error", message}} = Snex.pyeval(inp, code)
      assert message =~ "FunctionClauseError"

      code = "try:\n    await Elixir.No.such()\nexcept snex.ElixirError as e:\n    return str(e)"
      assert {:ok, message} = Snex.pyeval(inp, code)
      assert message =~ "function No.such/0 is undefined"
    end

    test "send messages in order, to pids and to names", %{inp: inp} do
      Process.register(self(), :snex_test_receiver)

      code =
        "for n in range(100):\n    await snex.send(pid, n)\nawait snex.send(snex.Atom('snex_test_receiver'), 'end')"

      assert Snex.pyeval(inp, code, %{"pid" => self()}) == {:ok, nil}
      for n <- 0..99, do: assert_received(^n)
      assert_received "end"
    end
  end
end
