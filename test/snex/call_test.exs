defmodule Snex.CallTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Object

  @moduletag :interpreter

  defp gate(inp) do
    Snex.make_env!(inp, %{"test" => self()})
    |> tap(&Snex.pyeval!(&1, "import asyncio, threading; gate = threading.Event(); waits = asyncio.Event()"))
  end

  describe "a path" do
    test "begins in the environment, before Python's own functions, before modules", %{inp: inp} do
      env = Snex.make_env!(inp)
      assert Snex.call(env, "len", ["abc"]) == {:ok, 3}
      assert Snex.call(env, "math.floor", [2.5]) == {:ok, 2}
      Snex.pyeval!(env, "def len(x): return 'mine'\nclass math: floor = staticmethod(lambda x: 'mine')")
      assert Snex.call(env, "len", ["abc"]) == {:ok, "mine"}
      assert Snex.call(env, "math.floor", [2.5]) == {:ok, "mine"}
      # The others don't see it.
      assert Snex.call(inp, "len", ["abc"]) == {:ok, 3}
      assert Snex.call(Snex.make_env!(inp), "math.floor", [2.5]) == {:ok, 2}
    end

    test "begins with one of Python's own functions before a module of that name" do
      folder = Path.join(System.tmp_dir!(), "snex_#{System.unique_integer([:positive])}")
      File.mkdir_p!(folder)
      on_exit(fn -> File.rm_rf!(folder) end)
      File.write!(Path.join(folder, "len.py"), "def len(x): return 'of the module'")
      inp = start_interpreter!(environment: %{"PYTHONPATH" => folder})
      assert Snex.call(inp, "len", ["abc"]) == {:ok, 3}
      assert Snex.call(inp, {"len", "len"}, ["abc"]) == {:ok, "of the module"}
    end

    test "given an interpreter, begins in its root environment, which no call changes" do
      inp = start_interpreter!(init_script: "x = [1]\ndef add(y): return x + [y]")
      assert Snex.call(inp, "add", [2]) == {:ok, [1, 2]}
      assert Snex.call(inp, "exec", ["x = [5]"]) == {:ok, nil}
      assert Snex.call(inp, "add", [2]) == {:ok, [1, 2]}
      assert Snex.get(inp, "x") == {:ok, [1]}
    end

    test "leads into submodules that nobody has imported", %{inp: inp} do
      assert Snex.pyeval(inp, "import sys; return 'xml' in sys.modules") == {:ok, false}
      assert {:ok, %Object{} = tree} = Snex.call(inp, "xml.etree.ElementTree.fromstring", ["<a b='c'/>"])
      assert Object.get(tree, "tag") == {:ok, "a"}
      assert Snex.call(inp, "os.path.join", ["a", "b"]) == {:ok, "a/b"}
      assert Snex.get(inp, "os.path.sep") == {:ok, "/"}
    end

    test "may begin at a module, whatever the environment has", %{inp: inp} do
      env = Snex.make_env!(inp, %{"math" => 1, "os" => 2})
      assert Snex.call(env, {"math", "sqrt"}, [16]) == {:ok, 4.0}
      assert Snex.call(env, {"os.path", "join"}, ["a", "b"]) == {:ok, "a/b"}
      assert Snex.call(env, {"os", "path.join"}, ["a", "b"]) == {:ok, "a/b"}
      assert Snex.get(env, {"os", "sep"}) == {:ok, "/"}
      assert Snex.get(env, "math") == {:ok, 1}
    end

    test "leads through attributes of anything", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, "class A:\n  def __init__(self): self.b = 'text'\na = A()")
      assert Snex.call(env, "a.b.upper") == {:ok, "TEXT"}
      assert Snex.call!(env, "a.__class__.__name__.lower") == "a"
      assert Snex.get!(env, "a.b") == "text"
    end

    test "that leads nowhere says which part, and names the nearest ones", %{inp: inp} do
      env = Snex.make_env!(inp, %{"frame" => %{"a" => 1}})

      for {path, type, reason} <- [
            {"fram", "NameError",
             "'fram' is neither a name in the environment nor a module. Did you mean: 'frame'"},
            {"math.sqr", "AttributeError",
             "'math.sqr' leads nowhere: module 'math' has no attribute 'sqr'. Did you mean: 'sqrt', 'isqrt'?"},
            {"frame.vales", "AttributeError",
             "'frame.vales' leads nowhere: 'dict' object has no attribute 'vales'. Did you mean: 'values'"},
            {"os.path.jion.x", "AttributeError", "module 'posixpath' has no attribute 'jion'"},
            {"zzqqxx.y", "NameError", "'zzqqxx' is neither a name in the environment nor a module"},
            {{"math", "sqr"}, "AttributeError", "module 'math' has no attribute 'sqr'. Did you mean: 'sqrt'"},
            {{"maths", "sqrt"}, "ModuleNotFoundError", "No module named 'maths'. Did you mean: 'math'"}
          ],
          result <- [Snex.call(env, path, [1]), Snex.get(env, path)] do
        assert {:error, %Error{code: :python_runtime_error, exception: %{type: ^type}} = error} = result
        assert error.reason =~ reason
        # Nobody's code has run.
        assert Enum.join(error.traceback) =~ reason
        refute Enum.join(error.traceback) =~ "File "
      end
    end

    test "to a module whose import raises is that error" do
      folder = Path.join(System.tmp_dir!(), "snex_#{System.unique_integer([:positive])}")
      File.mkdir_p!(Path.join(folder, "pack"))
      on_exit(fn -> File.rm_rf!(folder) end)
      File.write!(Path.join(folder, "broken.py"), "import nothing_of_the_kind")
      File.write!(Path.join(folder, "failing.py"), "1 / 0")
      File.write!(Path.join(folder, "pack/__init__.py"), "")
      File.write!(Path.join(folder, "pack/sub.py"), "raise AttributeError('its own')")
      inp = start_interpreter!(environment: %{"PYTHONPATH" => folder})

      for {path, type, reason} <- [
            {"broken.f", "ModuleNotFoundError", "No module named 'nothing_of_the_kind'"},
            {"failing.f", "ZeroDivisionError", "division by zero"},
            {"pack.sub.f", "AttributeError", "its own"}
          ] do
        assert {:error, %Error{reason: ^reason, exception: %{type: ^type}} = error} = Snex.call(inp, path)
        [file | _] = String.split(path, ".f")
        assert Enum.join(error.traceback) =~ String.replace(file, ".", "/") <> ".py"
      end
    end

    test "through a property that raises is the error of the property", %{inp: inp} do
      env = Snex.make_env!(inp)

      Snex.pyeval!(env, """
      class A:
          @property
          def inner(self): return None.missing
          @property
          def own(self): raise AttributeError("of mine")
          def __getattr__(self, name): raise LookupError(name)
      class B:
          @property
          def inner(self): return None.missing
          @property
          def own(self): raise AttributeError("of mine")
      class C:
          __slots__ = ("slot",)
          def __getattr__(self, name): raise AttributeError(f"no {name} here")
      a, b, c = A(), B(), C()
      """)

      assert {:error, %{reason: "inner", exception: %{type: "LookupError"}}} = Snex.get(env, "a.inner")

      assert {:error, %{reason: reason, exception: %{type: "AttributeError"}} = error} =
               Snex.get(env, "b.inner")

      assert reason == "'NoneType' object has no attribute 'missing'"
      assert Enum.join(error.traceback) =~ "in inner"
      assert {:error, %{reason: "of mine"}} = Snex.get(env, "b.own")
      # Not there at all, whoever says so.
      assert {:error, %{reason: "'c.slt' leads nowhere: no slt here. Did you mean: 'slot'?"}} =
               Snex.get(env, "c.slt")
    end
  end

  describe "arguments" do
    test "by name are a keyword list or a map, and may be called as options are", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, "def f(*args, **kwargs): return args, kwargs")

      for kwargs <- [[timeout: 1, returns: 2], %{"timeout" => 1, returns: 2}] do
        assert Snex.call(env, "f", [1, "two"], kwargs: kwargs) ==
                 {:ok, {{1, "two"}, %{"timeout" => 1, "returns" => 2}}}
      end

      assert Snex.call(env, "f") == {:ok, {{}, %{}}}
      assert Snex.call(env, "f", [], kwargs: %{}, timeout: 60_000) == {:ok, {{}, %{}}}
    end

    test "are values as they are anywhere else", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, "def kinds(*args, **kw): return [type(x).__name__ for x in [*args, *kw.values()]]")
      args = [:a, 1.5, nil, {1}, MapSet.new([1]), Serde.binary("x"), ~T[12:00:00], self()]

      assert Snex.call(env, "kinds", args, kwargs: [x: %Snex.Money{amount: 1, currency: :EUR}]) ==
               {:ok, ~w[Atom float NoneType tuple set bytes time Term tuple]}

      assert Snex.call(env, "kinds", ["x"], encoding_opts: [binary_as: :bytearray]) == {:ok, ["bytearray"]}
    end

    test "that the function refuses are its own TypeError, without frames of ours", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, "def f(x): return inner(x)\ndef inner(x): return x + 1")

      for {args, kwargs, reason} <- [
            {[], [], "f() missing 1 required positional argument: 'x'"},
            {[1, 2], [], "f() takes 1 positional argument but 2 were given"},
            {[1], [y: 1], "f() got an unexpected keyword argument 'y'"}
          ] do
        assert {:error, %Error{exception: %{type: "TypeError"}, reason: ^reason} = error} =
                 Snex.call(env, "f", args, kwargs: kwargs)

        assert error.traceback == ["TypeError: #{reason}\n"]
      end

      assert {:error, %Error{exception: %{type: "TypeError"}, traceback: lines}} = Snex.call(env, "f", ["x"])
      files = for "  File " <> _ = line <- lines, do: line
      assert [f, inner] = files
      assert f =~ "in f" and inner =~ "in inner"
    end

    test "that are none raise an ArgumentError", %{inp: inp} do
      for args <- [%{}, "x", 1, [1 | 2], nil] do
        assert_raise ArgumentError, ~r/expected a list of arguments, got: /, fn ->
          Snex.call(inp, "len", args)
        end
      end

      for path <- [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            :len,
            nil,
            1,
            ~c"len",
            <<0xFF>>,
            {"a", :b},
            {:a, "b"},
            {"", "b"}
          ],
          fun <- [&Snex.call/2, &Snex.get/2] do
        assert_raise ArgumentError, ~r/expected a name, names joined by dots, or {module, name}/, fn ->
          fun.(inp, path)
        end
      end

      for kwargs <- [[1], "x", %{1 => 2}, %{<<0xFF>> => 1}, ~D[2026-01-01], [{"a", 1}]] do
        assert_raise ArgumentError, ~r/option :kwargs cannot be .*: expected a keyword list, or a map/s, fn ->
          Snex.call(inp, "len", [], kwargs: kwargs)
        end
      end

      assert_raise ArgumentError, ~r/cannot be encoded/, fn ->
        Snex.call(inp, "len", [%{__struct__: MapSet, map: 1}])
      end

      assert_raise ArgumentError, ~r/expected an environment or an interpreter/, fn ->
        Snex.call("x", "len")
      end
    end

    test "a parameter among the options raises an ArgumentError that says where it belongs", %{inp: inp} do
      assert_raise ArgumentError,
                   ~r/:base.* \(for an argument of the function, write kwargs: \[base: \.\.\.\]\)/,
                   fn ->
                     Snex.call(inp, "int", ["10"], base: 2)
                   end

      assert_raise ArgumentError, ~r/unknown option :kwargs/, fn -> Snex.get(inp, "int", kwargs: []) end

      assert_raise ArgumentError, ~r/option :returns cannot be :both: expected/, fn ->
        Snex.call(inp, "int", [], returns: :both)
      end

      assert_raise ArgumentError, ~r/option :run cannot be/, fn -> Snex.call(inp, "int", [], run: :fast) end
    end
  end

  describe "a result" do
    test "that can be awaited is awaited, of a call but not of a look", %{inp: inp} do
      env = Snex.make_env!(inp)

      Snex.pyeval!(env, """
      import asyncio
      async def later(x):
          await asyncio.sleep(0)
          return x
      def indirectly(x): return later(x)
      class Future:
          def __await__(self):
              yield from asyncio.sleep(0).__await__()
              return 'awaited'
      future = Future()
      def get(): return future
      """)

      for run <- [:loop, :thread] do
        assert Snex.call(env, "later", [1], run: run) == {:ok, 1}
        assert Snex.call(env, "indirectly", [[2]], run: run) == {:ok, [2]}
        assert Snex.call(env, "get", [], run: run) == {:ok, "awaited"}
        assert Snex.call(env, "asyncio.sleep", [0, "slept"], run: run) == {:ok, "slept"}
        assert {:ok, %Object{type: "Future"}} = Snex.get(env, "future", run: run)
      end
    end

    test "with returns: :value, :auto and :object", %{inp: inp} do
      assert {:error, %Error{reason: reason}} = Snex.call(inp, "object", [], returns: :value)
      assert reason =~ "Cannot serialize object of <class 'object'>"
      assert {:ok, %Object{type: "object"}} = Snex.call(inp, "object")
      assert {:ok, %Object{type: "object"}} = Snex.call(inp, "object", [], returns: :auto)
      assert Snex.call(inp, "list", [[1]]) == {:ok, [1]}
      assert {:ok, %Object{type: "list"}} = Snex.call(inp, "list", [[1]], returns: :object)
      assert {:ok, %Object{type: "int"}} = Snex.get(inp, "sys.maxsize", returns: :object)
      assert {:ok, %Object{type: "module"}} = Snex.get(inp, "sys")
    end

    test "functions whose name ends in ! return it or raise", %{inp: inp} do
      assert Snex.call!(inp, "len", ["ab"]) == 2
      assert Snex.call!(inp, "int", ["11"], kwargs: [base: 2]) == 3
      assert Snex.get!(inp, "sys.byteorder") in ["little", "big"]
      assert_raise Error, ~r/ValueError: invalid literal/, fn -> Snex.call!(inp, "int", ["x"]) end
      assert_raise Error, ~r/AttributeError: /, fn -> Snex.get!(inp, "sys.nothing") end
    end

    test "of exec, eval and globals is that of the environment", %{inp: inp} do
      env = Snex.make_env!(inp, %{"x" => 1})
      assert Snex.call(env, "eval", ["x + 1"]) == {:ok, 2}
      assert Snex.call(env, "exec", ["y = x + 2"]) == {:ok, nil}
      assert Snex.get(env, "y") == {:ok, 3}
      assert {:ok, %{"x" => 1, "y" => 3}} = Snex.call(env, "globals")
      assert {:ok, ["Elixir" | _]} = Snex.call(env, "dir")
      assert Snex.call(env, "eval", ["[a, b, x]", %{"a" => 1, "x" => 3}, %{"b" => 2}]) == {:ok, [1, 2, 3]}
      assert Snex.call(inp, "eval", ["1 + 1"]) == {:ok, 2}
      assert {:error, %{exception: %{type: "NameError"}}} = Snex.call(inp, "eval", ["resolve"])
    end

    test "is an error of the one call when there is no such environment or interpreter", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.destroy_env(env)
      assert {:error, %Error{code: :env_not_found}} = Snex.call(env, "len", ["x"])
      assert {:error, %Error{code: :env_not_found}} = Snex.get(env, "len")

      assert {:error, %Error{code: :call_failed, reason: :noproc} = error} =
               Snex.call(:nobody_here, "len", ["x"])

      assert Exception.message(error) =~ "no interpreter is named :nobody_here"
    end

    test "comes from every kind of name of an interpreter" do
      for {server, _pid} <- start_named_interpreters!(),
          do: assert(Snex.call(server, "len", ["x"]) == {:ok, 1})
    end
  end

  describe "run: :thread" do
    test "calls a blocking function while others are served", %{inp: inp} do
      env = gate(inp)
      blocked = Task.async(fn -> Snex.call(env, "gate.wait", [], run: :thread, timeout: 60_000) end)
      assert Snex.call(env, "len", ["x"], timeout: 60_000) == {:ok, 1}
      assert Snex.call(env, "gate.set", [], timeout: 60_000) == {:ok, nil}
      assert Task.await(blocked, :infinity) == {:ok, true}
    end

    test "runs where no event loop does", %{inp: inp} do
      env = Snex.make_env!(inp)

      Snex.pyeval!(env, """
      import asyncio
      async def one(): return 1
      def run():
          coroutine = one()
          try: return asyncio.run(coroutine)
          finally: coroutine.close()
      """)

      assert Snex.call(env, "run", [], run: :thread) == {:ok, 1}

      assert {:error, %Error{exception: %{type: "RuntimeError"}}} =
               Snex.call(env, "run", [], output: :discard)

      assert {:ok, %Object{}} = Snex.call(env, "threading.current_thread", [], run: :thread)
      assert Snex.get(env, "asyncio.run", run: :thread) |> elem(0) == :ok
    end
  end

  describe "a timeout" do
    test "interrupts a C function that was called by its name", %{inp: inp} do
      for run <- [:loop, :thread] do
        assert {:error, %Error{code: :response_timeout} = error} =
                 Snex.call(inp, "time.sleep", [if(run == :loop, do: 1_000, else: 1)], timeout: 100, run: run)

        assert Exception.message(error) =~ "within 100 ms"
        assert Snex.call(inp, "len", ["x"], timeout: 60_000) == {:ok, 1}
      end
    end

    test "cancels an async function, which cleans up", %{inp: inp} do
      env = gate(inp)

      Snex.pyeval!(env, """
      async def wait():
          try: await waits.wait()
          except BaseException as error: name = type(error).__name__; raise
          finally: await snex.send(test, name)
      """)

      assert {:error, %Error{code: :response_timeout}} = Snex.call(env, "wait", [], timeout: 50)
      assert_receive "CancelledError", 60_000
    end

    test "with on_timeout: :leave lets the work finish", %{inp: inp} do
      env = gate(inp)
      Snex.pyeval!(env, "def wait(): gate.wait(); snex.send_sync(test, 'through'); return object()")

      assert {:error, %Error{code: :response_timeout}} =
               Snex.call(env, "wait", [], timeout: 50, on_timeout: :leave, run: :thread)

      assert Snex.call(env, "gate.set", [], timeout: 60_000) == {:ok, nil}
      assert_receive "through", 60_000
    end

    test "the end of the caller cancels as well", %{inp: inp} do
      env = gate(inp)

      Snex.pyeval!(env, """
      async def wait():
          await snex.send(test, 'waits')
          try: await waits.wait()
          finally: await snex.send(test, 'ended')
      """)

      {pid, monitor} = spawn_monitor(fn -> Snex.call(env, "wait", [], timeout: :infinity) end)
      assert_receive "waits", 60_000
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 60_000
      assert_receive "ended", 60_000
    end

    test "is none for a call that cannot be done in time" do
      inp = start_interpreter!(max_in_flight: 1)
      env = gate(inp)
      blocked = Task.async(fn -> Snex.call(env, "gate.wait", [], run: :thread, timeout: 60_000) end)
      eventually(fn -> Interpreter.info(inp).requests_in_flight == 1 end)
      assert {:error, %Error{code: :overloaded}} = Snex.call(inp, "len", ["x"])
      assert {:error, %Error{code: :overloaded}} = Snex.get(inp, "len")
      # Not to be waited for at the end.
      Process.exit(inp, :kill)
      assert {:error, %Error{}} = Task.await(blocked, 60_000)
    end
  end

  describe "what is printed" do
    test "belongs to the caller", %{inp: inp} do
      assert capture_io(fn -> {:ok, nil} = Snex.call(inp, "print", ["hello"], kwargs: [end: "!"]) end) ==
               "hello!"

      assert capture_io(fn -> {:ok, nil} = Snex.call(inp, "print", ["there"], run: :thread) end) == "there\n"
      test = self()
      assert Snex.call(inp, "print", ["you"], output: test) == {:ok, nil}
      assert_received {:snex_output, ^inp, :stdout, "you\n"}
    end
  end
end
