defmodule Snex.Serde.EncoderTest do
  use Snex.Case, async: true

  alias Snex.{Basket, Broken, Money, Ping, Tagged}

  doctest Snex.Serde.Encoder, import: true

  @moduletag :interpreter

  defp seen(inp, value, opts \\ []) do
    {:ok, seen} = Snex.pyeval(inp, "return x", %{"x" => value}, opts)
    seen
  end

  test "a struct becomes what its encoder says", %{inp: inp} do
    assert seen(inp, %Money{amount: 5, currency: :EUR}) == {5, :EUR}
  end

  test "what an encoder returns is encoded again", %{inp: inp} do
    basket = %Basket{items: [%Money{amount: 1, currency: :EUR}, %Basket{items: []}]}

    assert seen(inp, basket) == %{
             "items" => [{1, :EUR}, %{"items" => [], "total" => {0, :EUR}}],
             "total" => {2, :EUR}
           }
  end

  test "an encoder that returns the same struct type: that is a plain dict with __struct__", %{inp: inp} do
    code = "return type(x) is dict, x['__struct__'], x['tag']"
    assert Snex.pyeval(inp, code, %{"x" => %Tagged{}}) == {:ok, {true, Tagged, "seen"}}

    assert seen(inp, %Tagged{value: %Money{amount: 1, currency: :USD}}) == %Tagged{
             value: {1, :USD},
             tag: "seen"
           }
  end

  test "structs are found wherever they are", %{inp: inp} do
    money = %Money{amount: 1, currency: :EUR}

    assert seen(inp, %{
             money => [money],
             :set => MapSet.new([money]),
             :tuple => {money, [money]},
             :date => ~D[2026-01-01]
           }) ==
             %{
               {1, :EUR} => [{1, :EUR}],
               :set => MapSet.new([{1, :EUR}]),
               :tuple => {{1, :EUR}, [{1, :EUR}]},
               :date => ~D[2026-01-01]
             }

    object = Serde.object("builtins", "list", [[money, ~T[01:02:03]]])

    assert {:ok, {{1, :EUR}, "01:02:03"}} =
             Snex.pyeval(inp, "return x[0], x[1].isoformat()", %{"x" => object})
  end

  test "structs inside of opaque terms are left alone", %{inp: inp} do
    money = %Money{amount: 1, currency: :EUR}
    assert seen(inp, Serde.term(money)) == money
    improper = [%Broken{how: :raise} | :tail]
    assert seen(inp, [improper, money]) == [improper, {1, :EUR}]
  end

  test "improper lists in what encoders return count for no depth", %{inp: inp} do
    money = %Money{amount: [1 | 2], currency: :EUR}
    opaque = List.duplicate([money | :tail], 1_001)
    assert seen(inp, [money, opaque, money]) == [{[1 | 2], :EUR}, opaque, {[1 | 2], :EUR}]
  end

  test "each struct is encoded once, however often it occurs", %{inp: inp} do
    broken = %Broken{how: {:tell, self()}}
    assert seen(inp, List.duplicate(broken, 100)) == List.duplicate(:encoded, 100)
    assert_received :encoded
    refute_received :encoded
  end

  test "many and large structs are encoded", %{inp: inp} do
    many = for n <- 1..20_000, do: %Money{amount: n, currency: :EUR}
    assert seen(inp, many, timeout: 60_000) == for(n <- 1..20_000, do: {n, :EUR})
    large = %Money{amount: Enum.to_list(1..50_000), currency: :EUR}
    assert seen(inp, large, timeout: 60_000) == {Enum.to_list(1..50_000), :EUR}
  end

  test "an encoder that raises is the error of the one call, with its stacktrace", %{inp: inp} do
    assert {:error, %Error{code: :call_failed} = error} =
             Snex.pyeval(inp, "return x", %{"x" => [%Broken{how: :raise}]})

    assert error.reason == %ArgumentError{message: "no encoding today"}
    assert Enum.join(error.traceback) =~ "test/support/encoders.ex"

    assert {:error, %Error{code: :call_failed, reason: {:throw, :ball}}} =
             Snex.pyeval(inp, "return x", %{"x" => %Broken{how: :throw}})

    assert seen(inp, 1) == 1
  end

  test "encoders that go in circles are refused", %{inp: inp} do
    assert_raise ArgumentError, ~r/cannot be encoded for Python: %Snex.P.ng{n: 1}/, fn ->
      seen(inp, %Ping{n: 1})
    end

    assert seen(inp, 1) == 1
  end

  test "what Elixir returns to Python is encoded the same way", %{inp: inp} do
    code = "return str(await snex.call('Elixir.Time', 'from_iso8601!', ['12:30:00']))"
    assert Snex.pyeval(inp, code) == {:ok, "12:30:00"}
  end

  test "structs without an encoder are plain dicts with __struct__, each time", %{inp: inp} do
    uri = URI.parse("https://example.org/")
    for _ <- 1..3, do: assert(seen(inp, [uri, ~D[2026-01-01]]) == [uri, ~D[2026-01-01]])
  end
end
