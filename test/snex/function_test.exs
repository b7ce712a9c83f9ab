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
end
