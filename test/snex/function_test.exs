defmodule Snex.FunctionTest do
  use Snex.Case, async: true

  describe "a function passed to Python" do
    @describetag :interpreter

    test "is awaited like a function of Python's own", %{inp: inp} do
      assert Snex.pyeval(inp, "return await f(1, 2)", %{"f" => &(&1 + &2)}) == {:ok, 3}
      assert Snex.pyeval(inp, "return await f()", %{"f" => fn -> %{a: 1} end}) == {:ok, %{a: 1}}
      assert Snex.pyeval(inp, "return await f([1, 2, 3])", %{"f" => &Enum.sum/1}) == {:ok, 6}
      code = "import asyncio\nreturn await asyncio.gather(*[f(n) for n in range(200)])"
      assert Snex.pyeval(inp, code, %{"f" => &(&1 * 2)}) == {:ok, for(n <- 0..199, do: n * 2)}
    end

    test "has call_sync for threads, and result_encoding_opts", %{inp: inp} do
      code = """
      import asyncio
      opts = {"binary_as": "bytes"}
      def work():
          return type(f.call_sync("a", result_encoding_opts=opts)).__name__
      return await asyncio.to_thread(work), type(await f("a", result_encoding_opts=opts)).__name__
      """

      assert Snex.pyeval(inp, code, %{"f" => & &1}) == {:ok, {"bytes", "bytes"}}
    end

    test "stays what it is inside an opaque term", %{inp: inp} do
      term = Serde.term({:ok, &String.upcase/1})

      assert Snex.pyeval(inp, "return type(x).__name__, x", %{"x" => term}) ==
               {:ok, {"Term", {:ok, &String.upcase/1}}}
    end

    test "raises what it raises, exits with and throws as an ElixirError", %{inp: inp} do
      code = """
      try:
          await f()
      except snex.ElixirError as error:
          return error.kind, str(error).splitlines()[0], error.reason
      """

      for {fail, expected} <- [
            {fn -> raise "no good" end,
             {"error", "** (RuntimeError) no good", %RuntimeError{message: "no good"}}},
            {fn -> exit(:no_good) end, {"exit", "** (exit) :no_good", :no_good}},
            {fn -> throw(:no_good) end, {"throw", "** (throw) :no_good", :no_good}},
            {fn -> Process.exit(self(), :kill) end, {"exit", "** (exit) killed", :killed}}
          ] do
        assert Snex.pyeval(inp, code, %{"f" => fail}) == {:ok, expected}
      end
    end

    test "with a wrong number of arguments is a TypeError, and is not called", %{inp: inp} do
      for {fun, text} <- [
            {fn _one -> 1 end, "fn() takes 1 positional argument but 2 were given"},
            {fn -> 1 end, "fn() takes 0 positional arguments but 2 were given"},
            {&String.upcase/1, "upcase() takes 1 positional argument but 2 were given"}
          ],
          value <- [fun, Serde.callback(fun)] do
        assert {:error, error} = Snex.pyeval(inp, "x = f(1, 2)\nreturn await x", %{"f" => value})
        assert {error.exception.type, error.reason} == {"TypeError", text}
      end
    end

    test "comes back as the same function, whatever became of it", %{inp: inp} do
      code = """
      import copy, pickle
      return [g for f in fs for g in (f, copy.deepcopy(f), pickle.loads(pickle.dumps(f)))]
      """

      outside = self()
      fun = fn -> outside end
      fs = [fun, Serde.callback(fun), &Enum.sum/1, Serde.callback(&Enum.sum/1)]
      {:ok, back} = Snex.pyeval(inp, code, %{"fs" => fs})
      assert back == List.duplicate(fun, 6) ++ List.duplicate(&Enum.sum/1, 6)
    end

    test "says what it is", %{inp: inp} do
      code = "return [repr(f) for f in fs]"

      fs = [
        &Enum.sum/1,
        &:erlang.abs/1,
        Serde.callback(&Enum.sum/1),
        fn _a, _b -> 1 end,
        Serde.callback(fn -> 1 end)
      ]

      assert Snex.pyeval(inp, code, %{"fs" => fs}) ==
               {:ok,
                [
                  "<snex.Function &Enum.sum/1>",
                  "<snex.Function &:erlang.abs/1>",
                  "<snex.Callback &Enum.sum/1>",
                  "<snex.Function fn/2 of Snex.FunctionTest>",
                  "<snex.Callback fn/0 of Snex.FunctionTest>"
                ]}
    end

    test "of any size, closure and all", %{inp: inp} do
      data = :binary.copy("x", 1_000_000)
      fun = fn n -> {n, byte_size(data)} end
      assert Snex.pyeval(inp, "return await f(1)", %{"f" => fun}) == {:ok, {1, 1_000_000}}
    end
  end

  describe "Serde.callback/1 in threads" do
    @describetag :interpreter

    test "is an ordinary callable: a sort key, a default, what inspect can look at", %{inp: inp} do
      code = """
      import functools, inspect
      return sorted(words, key=f), list(map(f, words)), str(inspect.signature(f)), f.__name__, callable(f), functools.partial(f, "abc")()
      """

      vars = %{"words" => ["ccc", "a", "bb"], "f" => Serde.callback(&String.length/1)}

      assert Snex.pyeval(inp, code, vars, run: :thread) ==
               {:ok, {["a", "bb", "ccc"], [3, 1, 2], "(arg1, /)", "length", true, 3}}
    end

    test "takes positional arguments only", %{inp: inp} do
      vars = %{"f" => Serde.callback(fn _x -> 1 end)}
      assert {:error, error} = Snex.pyeval(inp, "f(x=1)", vars, run: :thread)

      assert {error.exception.type, error.reason} == {
               "TypeError",
               "fn() is an Elixir function and takes no keyword arguments, got 'x'"
             }
    end

    test "8 of them call back at once", %{inp: inp} do
      code = """
      from concurrent.futures import ThreadPoolExecutor
      with ThreadPoolExecutor(8) as pool:
          return sum(pool.map(f, range(2_000)))
      """

      vars = %{"f" => Serde.callback(&(&1 * 2))}
      assert Snex.pyeval(inp, code, vars, run: :thread, timeout: 60_000) == {:ok, Enum.sum(0..1_999) * 2}
    end
  end

  describe "on the event loop's thread" do
    @describetag :interpreter

    # What becomes of the process that Python has called meanwhile.
    defp call_async(inp, code, vars, opts \\ []) do
      Task.async(fn -> Snex.pyeval(inp, code, vars, Keyword.merge([timeout: 60_000], opts)) end)
    end

    # A callback that says that it runs, and waits until it is told what to return.
    defp told(test, name) do
      Serde.callback(fn ->
        send(test, {name, self()})

        receive do
          {:return, value} -> value
        end
      end)
    end

    defp await_told(name) do
      assert_receive {^name, pid}, 60_000
      pid
    end

    test "a callback is called, from the code, its tasks, sorted and callbacks of the loop", %{inp: inp} do
      code = """
      import asyncio
      async def task(n): return f(n)
      later = asyncio.get_running_loop().create_future()
      asyncio.get_running_loop().call_soon(lambda: later.set_result(f(30)))
      return f(1), sorted([3, 1, 2], key=f), await asyncio.create_task(task(20)), await later
      """

      assert Snex.pyeval(inp, code, %{"f" => Serde.callback(&(-&1))}) == {:ok, {-1, [3, 2, 1], -20, -30}}
      assert Snex.pyeval(inp, "return f.call_sync(2)", %{"f" => &(&1 * 2)}) == {:ok, 4}
      assert Snex.pyeval(inp, "return snex.call_sync('erlang', 'abs', [-1])") == {:ok, 1}
      assert Snex.pyeval(inp, "snex.send_sync(test, 1)", %{"test" => self()}) == {:ok, nil}
      assert_received 1
    end

    test "1,000 of them, one after the other", %{inp: inp} do
      code = "return sum(f(n) for n in range(1_000))"
      assert Snex.pyeval(inp, code, %{"f" => Serde.callback(&(&1 + 1))}, timeout: 60_000) == {:ok, 500_500}
    end

    test "what fails in Elixir is raised", %{inp: inp} do
      code =
        "try:\n    f()\nexcept snex.ElixirError as error:\n    return error.kind, str(error).splitlines()[0]"

      for {fail, expected} <- [
            {fn -> raise "no good" end, {"error", "** (RuntimeError) no good"}},
            {fn -> exit(:no_good) end, {"exit", "** (exit) :no_good"}},
            {fn -> throw(:no_good) end, {"throw", "** (throw) :no_good"}},
            {fn -> Process.exit(self(), :kill) end, {"exit", "** (exit) killed"}}
          ] do
        assert Snex.pyeval(inp, code, %{"f" => Serde.callback(fail)}) == {:ok, expected}
      end
    end

    test "it may use the same interpreter, and the same environment: pyeval, call, make_env, objects", %{
      inp: inp
    } do
      env = Snex.make_env!(inp, %{"x" => 1})

      f =
        Serde.callback(fn n ->
          {:ok, x} = Snex.pyeval(env, "x += n\nreturn x", %{"n" => n})
          {:ok, other} = Snex.make_env(inp, %{"y" => x}, from: env)
          {:ok, y} = Snex.pyeval(other, "return y * 2")
          root = Snex.call!(inp, "math.sqrt", [16])
          {:ok, object} = Snex.call(inp, "fractions.Fraction", [1, 2], returns: :object)
          {x, y, root, Snex.Object.get!(object, "denominator")}
        end)

      assert Snex.pyeval(env, "r = [f(10), f(100)]\nreturn r, x", %{"f" => f}) ==
               {:ok, {[{11, 22, 4.0, 2}, {111, 222, 4.0, 2}], 111}}
    end

    test "so may tasks that it starts, and tasks of tasks", %{inp: inp} do
      f =
        Serde.callback(fn ->
          1..8
          |> Task.async_stream(fn n ->
            Task.await(Task.async(fn -> Snex.pyeval!(inp, "return n * 2", %{"n" => n}) end), 60_000)
          end)
          |> Enum.map(fn {:ok, value} -> value end)
        end)

      assert Snex.pyeval(inp, "return f()", %{"f" => f}) == {:ok, Enum.map(1..8, &(&1 * 2))}
    end

    test "code that awaits cannot run for it, and says what to do; run: :thread does", %{inp: inp} do
      code = "import asyncio\nawait asyncio.sleep(0)\nreturn 1"

      f =
        Serde.callback(fn ->
          {:error, error} = Snex.pyeval(inp, code)
          {:error, called} = Snex.call(inp, "asyncio.sleep", [0])
          {error.reason, called.reason, Snex.pyeval!(inp, code, run: :thread)}
        end)

      assert {:ok, {reason, reason, 1}} = Snex.pyeval(inp, "return f()", %{"f" => f})
      assert reason =~ "the event loop is waiting for the Elixir function that called it"
      assert reason =~ "run: :thread"
    end

    @tag timeout: 600_000
    test "200 levels of Elixir and Python on top of each other", %{inp: inp} do
      code = "return f(n - 1) + 1 if n else 0"

      down = fn n, down ->
        callback = Serde.callback(&down.(&1, down))
        Snex.pyeval!(inp, code, %{"n" => n, "f" => callback}, timeout: 300_000)
      end

      assert down.(200, down) == 200

      # Further down than there is room for, it is an error, and nothing but.
      assert %Error{} = error = catch_error(down.(100_000, down))
      assert error.exception.type == "ElixirError"
      assert byte_size(error.reason) < 100_000
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "others are served afterwards, in their order, and prints keep theirs", %{inp: inp} do
      env = Snex.make_env!(inp)
      {:ok, nil} = Snex.pyeval(env, "order = []")

      text =
        ExUnit.CaptureIO.capture_io(fn ->
          code = "print('before')\nf()\nprint('after')\norder.append('outer')"
          outer = call_async(env, code, %{"f" => told(self(), :outer)})
          pid = await_told(:outer)

          others =
            for n <- 1..20 do
              task = call_async(env, "order.append(n)", %{"n" => n})
              eventually(fn -> Interpreter.info(inp).requests_in_flight == n + 1 end)
              task
            end

          send(pid, {:return, nil})
          assert Task.await_many([outer | others], 60_000) == List.duplicate({:ok, nil}, 21)
        end)

      assert text == "before\nafter\n"
      assert Snex.pyeval(env, "return order") == {:ok, ["outer" | Enum.to_list(1..20)]}
    end

    test "it belongs to the caller: group leader, $callers, Logger metadata", %{inp: inp} do
      Logger.metadata(order: 7)

      f =
        Serde.callback(fn ->
          IO.puts("from Elixir")
          # On top, and so on.
          {:ok, nil} = Snex.pyeval(inp, "print('from Python, on top')")
          {Process.get(:"$callers"), Logger.metadata()[:order]}
        end)

      text =
        ExUnit.CaptureIO.capture_io(fn ->
          {:ok, {[first | _], 7}} = Snex.pyeval(inp, "return f()", %{"f" => f})
          assert first == self()
        end)

      assert text == "from Elixir\nfrom Python, on top\n"
    end

    test "the call's timeout ends the wait; the function comes to its end, and its answer reaches nobody", %{
      inp: inp
    } do
      env = Snex.make_env!(inp)
      code = "try:\n    f()\nexcept BaseException as e:\n    raised = type(e).__name__\n    raise"

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, code, %{"f" => told(self(), :f)}, timeout: 200)

      pid = await_told(:f)
      assert Snex.pyeval(env, "return raised", %{}, timeout: 60_000) == {:ok, "Cancelled"}
      monitor = Process.monitor(pid)
      send(pid, {:return, 1})
      assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 60_000
      assert Snex.pyeval(env, "return raised") == {:ok, "Cancelled"}
    end

    test "so does the caller's death, also on top of another", %{inp: inp} do
      env = Snex.make_env!(inp)
      {:ok, nil} = Snex.pyeval(env, "log = []")
      code = &"try:\n    #{&1}()\nfinally:\n    log.append('#{&1}')"
      test = self()

      inner =
        Serde.callback(fn ->
          Snex.pyeval(env, code.("inner"), %{"inner" => told(test, :inner)}, timeout: :infinity)
        end)

      caller = spawn(fn -> Snex.pyeval(env, code.("outer"), %{"outer" => inner}, timeout: :infinity) end)
      await_told(:inner)
      Process.exit(caller, :kill)
      assert Snex.pyeval(env, "return log", %{}, timeout: 60_000) == {:ok, ["inner", "outer"]}
    end

    test "stop/1 ends it at once", %{inp: inp} do
      call = call_async(inp, "f()", %{"f" => told(self(), :f)})
      await_told(:f)
      assert Interpreter.stop(inp) == :ok
      assert {:error, %Error{code: :call_failed}} = Task.await(call, 60_000)
    end

    test "nothing is left of them", %{inp: inp} do
      code = "return [f(n) for n in range(100)]"
      f = Serde.callback(fn n -> Snex.pyeval!(inp, "return n", %{"n" => n}) end)
      assert Snex.pyeval(inp, code, %{"f" => f}) == {:ok, Enum.to_list(0..99)}

      left = """
      from snex._elixir import client
      waits = client.current().waits
      return len(client.current()._waiting), bool(waits.calls), len(waits._due), waits._kept, len(waits.unwanted)
      """

      assert Snex.pyeval(inp, left) == {:ok, {0, false, 0, 0, 0}}
    end
  end
end
