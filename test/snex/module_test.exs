defmodule Snex.ModuleTest do
  # Environments behave like modules; most of it is tested on the Python side.
  use Snex.Case, async: true

  @third "import decimal; return str(decimal.Decimal(1) / 3)"

  describe "context variables" do
    test "of the init script are set in every call" do
      inp = start_interpreter!(init_script: "import decimal; decimal.getcontext().prec = 5")
      env = Snex.make_env!(inp)

      for where <- [inp, env, Snex.make_env!(from: env)] do
        assert Snex.pyeval(where, @third) == {:ok, "0.33333"}
      end
    end

    test "of a call are set in later calls of its environment, and in copies of that" do
      inp = start_interpreter!()
      env = Snex.make_env!(inp)
      assert {:ok, nil} = Snex.pyeval(env, "import decimal; decimal.getcontext().prec = 3")
      assert Snex.pyeval(env, @third) == {:ok, "0.333"}
      assert Snex.pyeval(Snex.make_env!(from: env), @third) == {:ok, "0.333"}

      assert Snex.pyeval(Snex.make_env!(from: {env, only: []}), @third) ==
               {:ok, "0." <> String.duplicate("3", 28)}

      assert Snex.pyeval(inp, @third) == {:ok, "0." <> String.duplicate("3", 28)}
    end
  end

  describe "the module __main__" do
    test "is the environment of the call" do
      inp = start_interpreter!(init_script: "import pickle, sys\nclass P: pass")
      code = "class Q(P): pass\nreturn [type(pickle.loads(pickle.dumps(c()))) is c for c in (P, Q)]"

      for where <- [inp, Snex.make_env!(inp)] do
        assert Snex.pyeval(where, code) == {:ok, [true, true]}
      end

      one = Snex.make_env!(inp, %{"x" => 1})
      two = Snex.make_env!(inp, %{"x" => 2})
      look = "import asyncio\nawait asyncio.sleep(0)\nreturn sys.modules['__main__'].x"
      tasks = for env <- [one, two], _ <- 1..20, do: Task.async(fn -> Snex.pyeval!(env, look) end)
      assert Task.await_many(tasks, 60_000) == List.duplicate(1, 20) ++ List.duplicate(2, 20)
    end

    test "has the class of an object among the variables" do
      env = Snex.make_env!(start_interpreter!())
      assert {:ok, nil} = Snex.pyeval(env, "class P:\n    def __init__(self, x): self.x = x")
      vars = %{"p" => Snex.Serde.object("__main__", "P", [7])}
      assert Snex.pyeval(env, "return type(p) is P and p.x", vars) == {:ok, 7}
    end
  end

  test "inspect.getsource knows the source, from a string and from a sigil" do
    inp = start_interpreter!()
    source = "class C:\n    x = 1\n"

    for code <- [source, %Snex.Code{src: source, file: "no/such/file.ex", line: 30}] do
      env = Snex.make_env!(inp)
      assert {:ok, nil} = Snex.pyeval(env, code)
      assert Snex.pyeval(env, "import inspect\nreturn inspect.getsource(C)") == {:ok, source}
    end
  end
end
