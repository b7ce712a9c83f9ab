defmodule Snex.Integration.NxTest do
  # Tensors of Nx itself: on their way to numpy and back.
  use ExUnit.Case, async: true

  alias Snex.Array

  @moduletag timeout: 600_000

  @toml """
  [project]
  name = "nx-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy>=2", "ml_dtypes>=0.5"]
  """

  # A backend that keeps its numbers elsewhere, as one on a GPU does.
  defmodule Elsewhere do
    defstruct [:agent]

    def tensor(tensor) do
      {:ok, agent} = Agent.start_link(fn -> Nx.to_binary(tensor) end)
      %{tensor | data: %__MODULE__{agent: agent}}
    end

    def backend_copy(%{data: %{agent: agent}} = tensor, backend, opts) do
      backend.from_binary(tensor, Agent.get(agent, & &1), opts)
    end

    def to_binary(%{data: %{agent: agent}, type: {_kind, bits}}, limit) do
      agent |> Agent.get(& &1) |> binary_part(0, div(limit * bits, 8))
    end
  end

  defp start!(environment \\ %{}) do
    options = [pyproject_toml: @toml, environment: environment, init_script: "import ml_dtypes, numpy as np"]
    start_supervised!({Snex.Interpreter, options})
  end

  defp tensors do
    types =
      for(kind <- [:s, :u], bits <- [8, 16, 32, 64], do: {kind, bits}) ++ [f: 16, f: 32, f: 64, bf: 16, f: 8]

    for(type <- types, shape <- [{}, {1}, {2, 3}, {100, 200}], do: Nx.iota(shape, type: type)) ++
      [Nx.tensor([[Complex.new(1, 2)]], type: :c64), Nx.tensor([Complex.new(1, 2)], type: :c128)]
  end

  for {encoder, environment} <- [native: %{}, pure: %{"SNEX_ENCODER" => "pure"}] do
    test "a tensor is an array in Python, and comes back the same: the #{encoder} encoder" do
      inp = start!(unquote(Macro.escape(environment)))

      for tensor <- tensors() do
        assert Snex.pyeval(inp, "return x", %{"x" => tensor}) == {:ok, tensor}
        assert Snex.pyeval(inp, "return {'a': [x]}", %{"x" => [tensor]}) == {:ok, %{"a" => [[tensor]]}}
        code = "return type(x).__name__, x.shape, x.flags.writeable"
        assert Snex.pyeval(inp, code, %{"x" => tensor}) == {:ok, {"ndarray", Nx.shape(tensor), true}}
      end
    end
  end

  test "both sides compute the same" do
    inp = start!()
    a = Nx.iota({3, 4}, type: :f64)
    b = Nx.iota({4, 2}, type: :f64, names: [:rows, nil])
    assert {:ok, product} = Snex.pyeval(inp, "return a @ b", %{"a" => a, "b" => b})
    assert Nx.to_binary(product) == Nx.to_binary(Nx.dot(a, b))
    assert {:ok, turned} = Snex.pyeval(inp, "return a.T", %{"a" => a})
    assert turned == Nx.transpose(a)
    assert {:ok, flags} = Snex.pyeval(inp, "return a > 5", %{"a" => a})
    assert flags == Nx.greater(a, 5)
  end

  test "vectorized axes come first, and names are lost" do
    inp = start!()
    tensor = Nx.iota({2, 3, 4}, names: [:a, :b, :c], type: :s64)
    assert {:ok, back} = Snex.pyeval(inp, "return x", %{"x" => Nx.vectorize(tensor, :a)})
    assert back == Nx.rename(tensor, [nil, nil, nil])
  end

  test "Nx brings a tensor over that another backend has" do
    inp = start!()
    tensor = Nx.iota({2, 3}, type: :f32)
    there = Elsewhere.tensor(tensor)

    for _ <- 1..2,
        do: assert(Snex.pyeval(inp, "return x", %{"x" => [there, tensor]}) == {:ok, [tensor, tensor]})

    assert {:error, %Snex.Error{code: :call_failed} = error} =
             Snex.pyeval(inp, "return x", %{"x" => Nx.template({1}, :f32)})

    assert is_exception(error.reason)
  end

  test "what Python or Nx cannot hold is said" do
    inp = start!()
    assert {:error, error} = Snex.pyeval(inp, "return x", %{"x" => [Nx.tensor([1, 2], type: :u4)]})
    assert error.reason =~ "the variable x[0]: " and error.reason =~ "convert it with Nx.as_type/2"
    assert {:ok, %Array{shape: {0, 3}} = none} = Snex.pyeval(inp, "return np.zeros((0, 3))")
    assert_raise ArgumentError, ~r/without elements/, fn -> Array.to_nx(none) end
  end

  test "an array becomes a tensor, and a tensor an array" do
    for tensor <- tensors() do
      array = Array.from_nx(tensor)
      assert Array.to_binary(array) == Nx.to_binary(tensor)
      assert Array.to_nx(array) == tensor
    end

    assert Array.to_list(Array.from_nx(Nx.tensor([1.5, :infinity, :nan]))) == [1.5, :inf, :nan]
    assert Array.from_nx(Elsewhere.tensor(Nx.tensor([1, 2], type: :u8))) == Array.from_list([1, 2], {:u, 8})
    assert_raise ArgumentError, fn -> Array.from_nx(Nx.tensor([1, 2], type: :u4)) end
    assert_raise ArgumentError, fn -> Array.to_nx(%Array{type: {:u, 8}, shape: {3}, data: <<1>>}) end
  end

  test "the example in the page about data works" do
    page = Path.expand("../../../docs/data.md", __DIR__)
    [[_, code]] = Regex.scan(~r/^```elixir nx\n(.*?)^```/ms, File.read!(page))
    Code.eval_string(code, [science: start!()], file: page)
  end
end
