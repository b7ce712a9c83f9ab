defmodule Snex.ReturningTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  @moduletag :interpreter

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

  # What other tests may print to standard error meanwhile is captured as well.
  defp warned?(fun), do: with_io(:stderr, fun) |> elem(1) =~ "the option :returning is deprecated"

  test "works, is deprecated, and warns once for each place that it is used in", %{inp: inp} do
    one = fn -> Snex.pyeval(inp, "x = 1", returning: "x") |> then(& &1) end
    other = fn -> Snex.pyeval!(inp, "x = 2", returning: "x") |> then(& &1) end

    assert {{:ok, 1}, warning} = with_io(:stderr, one)
    assert warning =~ "the option :returning is deprecated"
    assert warning =~ Path.basename(__ENV__.file)
    refute warned?(one)

    assert {2, warning} = with_io(:stderr, other)
    assert warning =~ "the option :returning is deprecated"
    refute warned?(other)
    refute warned?(one)
  end

  test "that is no string and no list of strings raises ArgumentError", %{inp: inp} do
    for wrong <- [:x, 17, ["x", :y], %{}] do
      assert_raise ArgumentError,
                   ~r/option :returning cannot be #{Regex.escape(inspect(wrong))}: expected a Python expression/,
                   fn ->
                     Snex.pyeval(inp, "x = 1", returning: wrong)
                   end
    end
  end
end
