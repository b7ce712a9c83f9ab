defmodule Snex.ArrayTest do
  use Snex.Case, async: true

  alias Snex.Array

  doctest Array

  @types for(kind <- [:s, :u, :f], bits <- [8, 16, 32, 64], do: {kind, bits}) ++
           [bf: 16, c: 64, c: 128, f8_e4m3fn: 8]

  describe "an array" do
    test "shows its type and shape, and never its numbers" do
      array = Array.new(:binary.copy("x", 1_000_000), {:u, 8}, {1000, 1000})
      assert inspect(array) == "#Snex.Array<u8[1000][1000]>"
      assert inspect([Array.from_list(1.5)]) == "[#Snex.Array<f64>]"
      assert inspect(Array.new(<<0>>, {:f8_e4m3fn, 8}, {1})) == "#Snex.Array<f8_e4m3fn[1]>"

      for odd <- [
            %{array | type: nil},
            %{array | shape: [1]},
            %{array | type: {"f", 1}},
            %{array | data: 1},
            %{array | shape: {:a, -1}}
          ] do
        assert byte_size(inspect(odd)) < 400
      end
    end

    test "is made of what fits together only" do
      for {data, type, shape, said} <- [
            {<<0>>, {:f, 32}, {1}, "has 4 bytes, got a binary of 1"},
            {<<0>>, {:f, 32}, {}, "has 4 bytes, got a binary of 1"},
            {<<0>>, {:u, 8}, {2 ** 70, 2 ** 70}, "got a binary of 1"},
            {<<0>>, {:u, 8}, {1, -1}, "tuple of lengths"},
            {<<0>>, {:u, 8}, [1], "tuple of lengths"},
            {<<0>>, {:u, 8}, {:a}, "tuple of lengths"},
            {<<0>>, {:u, 4}, {2}, "expected a type"},
            {<<0>>, :u8, {1}, "expected a type"},
            {<<1::1>>, {:u, 8}, {1}, "expected a binary"},
            {[0], {:u, 8}, {1}, "expected a binary"}
          ] do
        error = assert_raise ArgumentError, fn -> Array.new(data, type, shape) end
        assert error.message =~ said
        by_hand = %Array{type: type, shape: shape, data: data}
        assert_raise ArgumentError, fn -> Array.to_list(by_hand) end
      end
    end

    test "keeps the numbers of lists" do
      for type <- @types -- [{:f, 8}, {:f8_e4m3fn, 8}],
          list <- [[1, 2, 3], [[0, 1], [2, 3]], [[[7]], [[9]]], 5, [], [[], []]] do
        back = list |> Array.from_list(type) |> Array.to_list()
        plain = if elem(type, 0) == :c, do: reals(back), else: back
        assert plain == list
      end

      assert Array.to_list(Array.from_list([-1, -128], {:s, 8})) == [-1, -128]
      specials = [:inf, :"-inf", :nan, -0.0, 1.5]

      for type <- [f: 16, f: 32, f: 64, bf: 16],
          do: assert(Array.to_list(Array.from_list(specials, type)) === specials)

      assert Array.to_list(Array.from_list([{1, :nan}])) == [{1.0, :nan}]
      assert Array.from_list([1, 2.5]).type == {:f, 64}
      # Rounded to the nearest, and to the even one of two.
      near = [1.0 + 1 / 256, 1.0 + 3 / 256, 1.0 + 2 / 256]
      assert Array.to_list(Array.from_list(near, {:bf, 16})) == [1.0, 1.015625, 1.0078125]

      assert Array.to_list(Array.new(<<0x3C, 0xC0, 0x7C, 0xFC, 0x7F>>, {:f, 8}, {5})) == [
               1.0,
               -2.0,
               :inf,
               :"-inf",
               :nan
             ]

      assert Array.to_list(Array.new(<<0x38, 0x7F, 0x7E, 0x81, 0>>, {:f8_e4m3fn, 8}, {5})) == [
               1.0,
               :nan,
               448.0,
               -1 / 512,
               0.0
             ]
    end

    test "is made of lists that fit together only" do
      for list <- [[[1], [1, 2]], [[1, 2], [1]], [[1], 2], [1, [2]], [[1], [[2]]]] do
        assert_raise ArgumentError, ~r/expected lists with the same length on each level/, fn ->
          Array.from_list(list, {:u, 8})
        end
      end

      for {list, type} <- [
            {[256], {:u, 8}},
            {[-1], {:u, 8}},
            {[128], {:s, 8}},
            {[1.5], {:s, 8}},
            {["a"], {:f, 32}},
            {[{1, 2}], {:f, 32}},
            {[:a], {:c, 64}},
            {[1.0], {:f, 8}},
            {[1], {:u, 7}}
          ] do
        assert_raise ArgumentError, fn -> Array.from_list(list, type) end
      end
    end
  end

  defp reals(list) when is_list(list), do: Enum.map(list, &reals/1)
  defp reals({real, +0.0}), do: real

  test "without Nx there is nothing to convert to" do
    unless Code.ensure_loaded?(Nx) do
      assert_raise ArgumentError, ~r/add {:nx/, fn -> Array.to_nx(Array.from_list([1])) end
      assert_raise ArgumentError, ~r/add {:nx/, fn -> Array.from_nx(%{}) end
    end
  end
end
