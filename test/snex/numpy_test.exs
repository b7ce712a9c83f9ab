defmodule Snex.NumpyTest do
  # Arrays on their way to numpy and back.
  use Snex.Case, async: true

  alias Snex.Array

  @moduletag :slow
  @moduletag timeout: 600_000

  @toml """
  [project]
  name = "numpy-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy>=2", "ml_dtypes>=0.5"]
  """

  @types for(kind <- [:s, :u], bits <- [8, 16, 32, 64], do: {kind, bits}) ++
           [f: 16, f: 32, f: 64, c: 64, c: 128, bf: 16, f: 8, f8_e4m3fn: 8]

  defp start!(environment) do
    options = [pyproject_toml: @toml, environment: environment, init_script: "import ml_dtypes, numpy as np"]
    start_supervised!({Interpreter, options})
  end

  for {encoder, environment} <- [native: %{}, pure: %{"SNEX_ENCODER" => "pure"}] do
    test "an array keeps its type, its shape and its numbers: the #{encoder} encoder" do
      inp = start!(unquote(Macro.escape(environment)))

      for {_kind, bits} = type <- @types, shape <- [{}, {1}, {2, 3}, {2, 1, 3}, {0}, {2, 0}, {300, 200}] do
        size = div(bits, 8) * Tuple.product(shape)

        array =
          Array.new(binary_part(:binary.copy(<<0, 1, 2, 3, 4, 5>>, div(size, 6) + 1), 0, size), type, shape)

        assert Snex.pyeval(inp, "return x", %{"x" => array}) == {:ok, array}
        nested = %{"a" => [array, {array}]}
        assert Snex.pyeval(inp, "return x", %{"x" => nested}) == {:ok, nested}

        code = "return type(x).__name__, x.shape, x.flags.writeable, x.tobytes(), x.itemsize * 8"
        expected = {"ndarray", shape, true, array.data, bits}
        assert Snex.pyeval(inp, code, %{"x" => array}) == {:ok, expected}
      end
    end

    test "numpy computes with it, and what comes back may lie in any way: the #{encoder} encoder" do
      inp = start!(unquote(Macro.escape(environment)))
      {:ok, env} = Snex.make_env(inp, %{"x" => Array.from_list([[1, 2, 3], [4, 5, 6]], {:s, 32})})
      assert Snex.pyeval(env, "return int(x.sum())") == {:ok, 21}

      for {code, list} <- [
            {"x.T", [[1, 4], [2, 5], [3, 6]]},
            {"x[:, ::-1]", [[3, 2, 1], [6, 5, 4]]},
            {"x.astype('>i4')", [[1, 2, 3], [4, 5, 6]]},
            {"np.asfortranarray(x)", [[1, 2, 3], [4, 5, 6]]},
            {"np.broadcast_to(x[0], (2, 3))", [[1, 2, 3], [1, 2, 3]]},
            {"x[:0]", []},
            {"x[1, 1:2].reshape(())", 5}
          ] do
        assert {:ok, %Array{type: {:s, 32}} = array} = Snex.pyeval(env, "return " <> code)
        assert Array.to_list(array) == list
      end

      assert Snex.pyeval(env, "x[0, 0] = 7; return x[0]") == {:ok, Array.from_list([7, 2, 3], {:s, 32})}
      assert {:ok, flags} = Snex.pyeval(env, "return x > 3")
      assert flags == Array.from_list([[1, 0, 0], [1, 1, 1]], {:u, 8})
      special = Array.from_list([:inf, :nan, :"-inf", -0.0, 1.5], {:f, 64})
      assert {:ok, back} = Snex.pyeval(env, "return y * 2", %{"y" => special})
      assert Array.to_list(back) === [:inf, :nan, :"-inf", -0.0, 3.0]
    end

    test "others are refused with a remedy, or stay in Python: the #{encoder} encoder" do
      inp = start!(unquote(Macro.escape(environment)))

      for {code, remedy} <- [
            {"np.array([{}])", ".tolist()"},
            {"np.zeros(2, [('a', 'i4')])", "array.dtype.names"},
            {"np.ma.masked_array([1, 2], [0, 1])", ".filled(value)"},
            {"np.array(['2026-01-01'], 'M8[D]')", "list(array)"}
          ] do
        assert {:error, error} = Snex.pyeval(inp, "return {'a': [#{code}]}")
        assert error.reason =~ "['a'][0]: Cannot serialize object of <class 'numpy."
        assert error.reason =~ remedy

        assert {:ok, [%Snex.Object{type: "numpy." <> _}]} =
                 Snex.pyeval(inp, "return [#{code}]", returns: :auto)
      end

      assert Snex.pyeval(inp, "return list(np.array(['2026-01-01'], 'M8[D]'))") == {:ok, [~D[2026-01-01]]}
    end
  end

  test "numpy's functions take arrays, and return them" do
    inp = start!(%{})
    a = Array.from_list([[1, 2], [3, 4]], {:f, 64})
    assert {:ok, product} = Snex.call(inp, "numpy.matmul", [a, a])
    assert Array.to_list(product) == [[7.0, 10.0], [15.0, 22.0]]
    assert {:ok, [eigen, _vectors]} = Snex.pyeval(inp, "return list(np.linalg.eigh(a))", %{"a" => a})
    assert eigen.type == {:f, 64}
    assert {:ok, %Snex.Object{type: "numpy.ndarray"}} = Snex.call(inp, "numpy.ones", [3], returns: :object)
  end

  test "an array that Python changes afterwards arrives as it was" do
    inp = start!(%{})

    # More than any pipe takes at once: the rest waits, and the array is changed meanwhile.
    code = """
    import asyncio
    x = np.zeros(4_000_000)
    async def spoil():
        x[:] = 1
    asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(spoil()))
    return x
    """

    for _ <- 1..5 do
      assert {:ok, %Array{data: data}} = Snex.pyeval(inp, code, timeout: 60_000)
      assert data == :binary.copy(<<0::64>>, 4_000_000)
    end
  end
end
