if Code.ensure_loaded?(Nx) do
  defmodule Snex.Integration.NxTest do
    use ExUnit.Case

    alias Snex.Integration

    @types [
      {:u, 8},
      {:u, 16},
      {:u, 32},
      {:u, 64},
      {:s, 8},
      {:s, 16},
      {:s, 32},
      {:s, 64},
      {:f, 8},
      {:f, 16},
      {:f, 32},
      {:f, 64},
      {:bf, 16},
      {:c, 64},
      {:c, 128}
    ]

    setup do
      %{envs: Integration.environments!()}
    end

    test "tensors of each type are arrays of numpy, and come back the same", %{envs: envs} do
      for env <- envs, type <- @types, shape <- [{}, {3}, {2, 3}, {1, 2, 1, 4}] do
        tensor = Nx.iota(shape, type: type)
        code = "return isinstance(x, np.ndarray), x.shape, {'x': (x, [np.asarray(x + x)])}"
        assert {:ok, {true, ^shape, %{"x" => {same, [double]}}}} = Snex.pyeval(env, code, %{"x" => tensor})
        assert same == tensor
        assert %Nx.Tensor{type: ^type, shape: ^shape, data: %Nx.BinaryBackend{}} = double
        assert double == Nx.add(tensor, tensor)
      end
    end

    test "arrays of numpy are tensors to calculate with", %{envs: envs} do
      for env <- envs do
        matrix = Snex.pyeval!(env, "return np.arange(6, dtype=np.float32).reshape(2, 3).T")
        assert Nx.shape(matrix) == {3, 2}
        assert Nx.to_list(matrix) == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
        assert matrix |> Nx.dot(Nx.transpose(matrix)) |> Nx.shape() == {3, 3}
        large = Snex.pyeval!(env, "return np.ones((1000, 1000))")
        assert large |> Nx.sum() |> Nx.to_number() == 1.0e6
      end
    end

    test "names of axes are lost, and vectorized axes come first", %{envs: envs} do
      tensor = Nx.iota({2, 3}, names: [:x, :y])

      for env <- envs do
        assert Snex.pyeval!(env, "return x", %{"x" => tensor}) == Nx.iota({2, 3})
        assert Snex.pyeval!(env, "return x.shape", %{"x" => Nx.vectorize(tensor, :x)}) == {2, 3}
      end
    end

    test "Snex.Array and Nx convert into each other", %{envs: [env | _]} do
      tensor = Nx.iota({2, 3}, type: {:f, 32})
      array = Snex.Array.from_nx(tensor)
      assert Snex.Array.to_nx(array) == tensor
      assert Snex.pyeval!(env, "return x", %{"x" => array}) == tensor
      # Nx has no tensor without elements.
      assert %Snex.Array{shape: {0, 3}} = Snex.pyeval!(env, "return np.zeros((0, 3))")
    end
  end
end
