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
end
