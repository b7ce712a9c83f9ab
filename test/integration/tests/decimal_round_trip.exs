if Code.ensure_loaded?(Decimal) do
  defmodule Snex.Integration.DecimalTest do
    use ExUnit.Case

    alias Snex.Integration

    @native [encoding_opts: [structs_as: :native]]

    test "Decimals become Python's, and Python's become Decimals" do
      for env <- Integration.environments!(),
          text <- ~w[0 -0 1.50 -12e30 1e-400 123456789012345678901234567890.5 NaN Infinity -Infinity] do
        value = Decimal.new(text)
        code = "return isinstance(x, decimal.Decimal), {'x': [x]}"
        assert {:ok, {true, %{"x" => [^value]}}} = Snex.pyeval(env, code, %{"x" => value}, @native)
        assert Snex.pyeval(env, "return decimal.Decimal(x)", %{"x" => text}) == {:ok, value}
      end
    end

    test "results are Decimals to calculate with" do
      [env | _] = Integration.environments!()
      half = Snex.pyeval!(env, "return x / 2", %{"x" => Decimal.new("2.50")}, @native)
      assert Decimal.equal?(Decimal.add(half, 1), Decimal.new("2.25"))
    end

    test "the example in the page about data works" do
      Integration.run_examples("decimal", py: Integration.start!(@native))
    end
  end
end
