defmodule Snex.Serde.ArrayTest do
  use Snex.Case, async: true

  alias Snex.Array

  @encoders [native: %{}, pure: %{"SNEX_ENCODER" => "pure"}]
  @types [u: 8, u: 16, u: 32, u: 64, s: 8, s: 16, s: 32, s: 64, f: 32, f: 64]

  for {encoder, environment} <- @encoders do
    describe "without numpy and Nx, with the #{encoder} encoder," do
      setup do: {:ok, inp: start_interpreter!(environment: unquote(Macro.escape(environment)))}

      test "an array is a view in Python, and comes back the same", %{inp: inp} do
        for {kind, bits} = type <- @types, shape <- [{}, {1}, {2, 3}, {2, 1, 3}, {0}, {100, 200}] do
          size = div(bits, 8) * Tuple.product(shape)

          array =
            Array.new(
              :binary.part(:binary.copy(<<1, 2, 3, 4, 5, 6, 7>>, div(size, 7) + 1), 0, size),
              type,
              shape
            )

          if {kind, bits, tuple_size(shape)} != {:u, 8, 1} do
            assert Snex.pyeval(inp, "return x", %{"x" => array}) == {:ok, array}
            nested = %{"a" => [array, {array}], b: %{{1} => array}}
            assert Snex.pyeval(inp, "return x", %{"x" => nested}) == {:ok, nested}
            assert Snex.call(inp, "list", [[array]]) == {:ok, [array]}
          end

          code = "return type(x).__name__, list(x.shape), x.readonly, x.tobytes(), x.itemsize * 8"
          expected = {"memoryview", Tuple.to_list(shape), false, array.data, bits}
          assert Snex.pyeval(inp, code, %{"x" => array}) == {:ok, expected}
        end
      end

      test "Python works with it, and a row of bytes is a binary again", %{inp: inp} do
        array = Array.from_list([[1.5, 2.5], [3.5, 4.5]], {:f, 32})

        assert Snex.pyeval(inp, "x[0, 1] = 9; return x.tolist()", %{"x" => array}) ==
                 {:ok, [[1.5, 9.0], [3.5, 4.5]]}

        # What Elixir has stays what it is.
        assert Array.to_list(array) == [[1.5, 2.5], [3.5, 4.5]]
        assert Snex.pyeval(inp, "return x", %{"x" => Array.from_list([1, 2], {:u, 8})}) == {:ok, <<1, 2>>}
      end

      test "views of Python's are arrays, in any order", %{inp: inp} do
        {:ok, env} = Snex.make_env(inp)
        {:ok, nil} = Snex.pyeval(env, "import array\nx = memoryview(array.array('i', range(50_000)))")
        assert Snex.pyeval(env, "return x") == {:ok, Array.from_list(Enum.to_list(0..49_999), {:s, 32})}
        assert {:ok, [first, last]} = Snex.pyeval(env, "return [x[:3], x[9:6:-1]]")
        assert first == Array.from_list([0, 1, 2], {:s, 32})
        assert last == Array.from_list([9, 8, 7], {:s, 32})
        assert Snex.pyeval(env, "return array.array('h', [1])") == {:ok, [1]}
      end
    end
  end

  describe "an array that was made by hand" do
    @describetag :interpreter

    test "is refused where it lies, with its place", %{inp: inp} do
      good = Array.from_list([[1, 2]], {:s, 32})

      for {bad, said} <- [
            {%{good | data: <<0>>}, "an array of type s32 and shape {1, 2} has 8 bytes, and its data has 1"},
            {%{good | data: <<0::96>>},
             "an array of type s32 and shape {1, 2} has 8 bytes, and its data has 12"},
            {%{good | data: <<1::1>>}, "its data is no binary"},
            {%{good | data: nil}, "its data is no binary"},
            {%{good | shape: {2, 2 ** 62}}, "its shape is larger than any memory"},
            {%{good | shape: {2 ** 61}}, "its shape is larger than any memory"},
            {%{good | shape: {2 ** 62, 2 ** 62}}, "its shape is larger than any memory"},
            {%{good | shape: {0, 2 ** 63}, data: <<>>}, "its shape is no tuple of sizes"},
            {%{good | shape: {2 ** 64}}, "its shape is no tuple of sizes"},
            {%{good | shape: {-1, -2}}, "its shape is no tuple of sizes"},
            {%{good | shape: {:a}}, "its shape is no tuple of sizes"},
            {%{good | shape: [1]}, "its shape is no tuple of sizes"},
            {%{good | type: {:s, 4}, data: <<0>>}, "convert it with Nx.as_type/2"},
            {%{good | type: {:s, 31}}, "its type is none of an array's"},
            {%{good | type: {:q, 32}}, "its type is none of an array's"},
            {%{good | type: {:c, 32}}, "its type is none of an array's"},
            {%{good | type: {:bf, 32}}, "its type is none of an array's"},
            {%{good | type: {:f8_e4m3fn, 32}}, "its type is none of an array's"},
            {%{good | type: :s32}, "its type is none of an array's"},
            {%{good | type: {:s, 2 ** 70}}, "its type is none of an array's"},
            {%{good | shape: List.to_tuple(List.duplicate(1, 65)), data: <<0::32>>}, "at most 64 axes"}
          ] do
        assert {:error, %Error{code: :python_runtime_error} = error} =
                 Snex.pyeval(inp, "return x", %{"x" => %{"rows" => [1, bad]}})

        assert error.exception.type == "ValueError"
        assert error.reason =~ "the variable x['rows'][1]: " and error.reason =~ said
        assert {:error, error} = Snex.call(inp, "repr", [[bad]])
        assert error.reason =~ "the argument 1[0]: "
      end

      assert_raise ArgumentError, ~r/cannot be encoded/, fn ->
        Snex.pyeval(inp, "return x", %{"x" => Map.delete(good, :data)})
      end

      assert Snex.pyeval(inp, "return x", %{"x" => good}) == {:ok, good}
    end

    test "in Python is what it says, and is not taken at its word", %{inp: inp} do
      code = """
      from snex import Atom
      return {Atom("__struct__"): Atom("Elixir.Snex.Array"), Atom("type"): (Atom("f"), 32), Atom("shape"): (2**40,), Atom("data"): b"abcd"}
      """

      assert {:ok, %Array{} = lie} = Snex.pyeval(inp, code)
      assert inspect(lie) == "#Snex.Array<f32[1099511627776]>"
      assert_raise ArgumentError, ~r/got a binary of 4/, fn -> Array.to_list(lie) end
      assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => lie})
      assert error.reason =~ "has 4398046511104 bytes, and its data has 4"
    end

    test "may lie in its own memory in any way", %{inp: inp} do
      <<_::8, unaligned::binary-size(8), _::binary>> = <<0::8, 1::32-native, 2::32-native, 9::32>>
      array = Array.new(unaligned, {:s, 32}, {2})
      assert Snex.pyeval(inp, "return x.tolist()", %{"x" => array}) == {:ok, [1, 2]}
      <<_::3, odd::bitstring>> = <<0::3, unaligned::binary>>
      assert Snex.pyeval(inp, "return x.tolist()", %{"x" => %{array | data: odd}}) == {:ok, [1, 2]}
    end
  end

  test "what the view cannot be needs numpy, and says so" do
    inp = start_interpreter!()

    for type <- [c: 64, c: 128, bf: 16, f: 8] do
      array = Array.new(<<0::size(elem(type, 1))>>, type, {1})
      assert {:error, error} = Snex.pyeval(inp, "return 1", %{"x" => [array]})
      assert error.reason =~ "the variable x[0]: " and error.reason =~ "import numpy first"
    end
  end

  test "encoders of the user's come first" do
    inp = start_interpreter!(init_script: "snex.set_custom_encoder(lambda x: 'mine')")
    # A view is what Snex encodes by itself, and no custom encoder is asked.
    assert Snex.pyeval(inp, "return x", %{"x" => Array.from_list([1])}) == {:ok, Array.from_list([1])}
  end

  test "arrays travel in streams, in calls from Python, and without new atoms" do
    inp = start_interpreter!(atoms: :existing)
    array = Array.from_list([[1, 2]], {:f, 32})
    assert Enum.to_list(Snex.stream(inp, "yield x\nyield [x]", %{"x" => array})) == [array, [array]]
    large = Array.new(<<0::size(800_000)>>, {:f, 32}, {25, 1000})

    assert Enum.to_list(Snex.stream(inp, "for _ in range(3):\n  yield x", %{"x" => large})) == [
             large,
             large,
             large
           ]

    code = "return [y async for y in xs]"
    assert Snex.pyeval(inp, code, %{"xs" => Serde.stream([array, large])}) == {:ok, [array, large]}
    assert Snex.pyeval(inp, "return await Elixir.Function.identity(x)", %{"x" => array}) == {:ok, array}
  end
end
