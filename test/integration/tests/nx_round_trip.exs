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

    # A backend that keeps its numbers elsewhere, as one on a GPU does.
    defmodule Elsewhere do
      defstruct [:agent]

      def tensor(tensor) do
        agent = ExUnit.Callbacks.start_supervised!({Agent, fn -> Nx.to_binary(tensor) end}, id: make_ref())
        %{tensor | data: %__MODULE__{agent: agent}}
      end

      def backend_copy(%{data: %{agent: agent}} = tensor, backend, opts) do
        backend.from_binary(tensor, Agent.get(agent, & &1), opts)
      end

      def to_binary(%{data: %{agent: agent}, type: {_kind, bits}}, limit) do
        agent |> Agent.get(& &1) |> binary_part(0, div(limit * bits, 8))
      end
    end

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
        # Nx 0.10 writes a zero of this type as another number.
        if type != {:f, 8}, do: assert(double == Nx.add(tensor, tensor))
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

    test "Nx brings a tensor over that another backend has", %{envs: envs} do
      tensor = Nx.iota({2, 3}, type: {:f, 32})
      there = Elsewhere.tensor(tensor)
      assert Snex.Array.from_nx(there) == Snex.Array.from_nx(tensor)

      for env <- envs do
        assert Snex.pyeval(env, "return x", %{"x" => [there, tensor]}) == {:ok, [tensor, tensor]}
        template = Nx.template({1}, {:f, 32})

        assert {:error, %Snex.Error{code: :call_failed} = error} =
                 Snex.pyeval(env, "return x", %{"x" => template})

        assert is_exception(error.reason)
      end
    end

    test "what Python or Nx cannot hold is said", %{envs: [env | _]} do
      assert {:error, error} = Snex.pyeval(env, "return x", %{"x" => [Nx.tensor([1, 2], type: {:u, 4})]})
      assert error.reason =~ "the variable x[0]: " and error.reason =~ "convert it with Nx.as_type/2"
      assert_raise ArgumentError, fn -> Snex.Array.from_nx(Nx.tensor([1, 2], type: {:u, 4})) end
      none = Snex.Array.new("", {:f, 32}, {0, 3})
      assert_raise ArgumentError, ~r/without elements/, fn -> Snex.Array.to_nx(none) end
      lie = %Snex.Array{type: {:u, 8}, shape: {3}, data: <<1>>}
      assert_raise ArgumentError, fn -> Snex.Array.to_nx(lie) end
    end

    test "the example in the page about data works", %{envs: envs} do
      for env <- envs, do: Integration.run_examples("nx", science: env)
    end
  end
end
