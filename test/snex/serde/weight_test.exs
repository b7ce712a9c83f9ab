defmodule Snex.Serde.WeightTest do
  use ExUnit.Case, async: true

  import Snex.Serde.Weight

  doctest Snex.Serde.Weight

  test "what is small is light" do
    for term <- [
          nil,
          1,
          -1,
          Bitwise.bsl(1, 100),
          1.5,
          "text",
          <<1::1>>,
          [],
          [1 | 2],
          {},
          %{},
          self(),
          make_ref(),
          hd(Port.list()),
          ~D[2026-01-01],
          MapSet.new([1]),
          Enum.to_list(1..1_000),
          List.to_tuple(Enum.to_list(1..1_000)),
          Map.new(1..500, &{&1, &1}),
          String.duplicate("x", 64 * 1024)
        ],
        do: assert(light?(term), inspect(term, limit: 5))
  end

  test "what is large in any way is not, wherever it is" do
    large_binary = String.duplicate("x", 1_000_000)

    for term <- [
          large_binary,
          <<large_binary::binary, 1::1>>,
          Bitwise.bsl(1, 1_000_000),
          -Bitwise.bsl(1, 1_000_000),
          Enum.to_list(1..10_000),
          Enum.reduce(1..10_000, :tail, &[&1 | &2]),
          Enum.reduce(1..10_000, [], fn _, inner -> [inner] end),
          Enum.reduce(1..10_000, {}, fn _, inner -> {inner} end),
          Enum.reduce(1..10_000, %{}, fn _, inner -> %{inner => 1} end),
          List.to_tuple(Enum.to_list(1..10_000)),
          Map.new(1..10_000, &{&1, &1}),
          List.duplicate(String.duplicate("x", 1_000), 1_000),
          fn -> large_binary end
        ] do
      refute light?(term)

      for whole <- [[1, term], [1 | term], {1, term}, %{1 => term}, %{term => 1}, MapSet.new([term])],
          do: refute(light?(whole))
    end
  end

  test "one term that is in many places weighs as often as it is written" do
    doubled = Enum.reduce(1..60, [1], fn _, inner -> [inner, inner] end)
    refute light?(doubled)
  end
end
