defmodule Snex.Serde.TensorTest do
  # Not async: this VM becomes a node. The other one gets structs that are laid out as Nx lays them out; test/integration has Nx itself.
  use Snex.Case

  alias Snex.Array
  alias Snex.Peer

  setup_all {Peer, :two_nodes}

  setup_all %{b: b} do
    run(b, """
    defmodule Nx.BinaryBackend, do: defstruct([:state])

    defmodule Nx.Tensor do
      @enforce_keys [:type, :shape, :names]
      defstruct [:data, :type, :shape, :names, vectorized_axes: [], donatable?: false]
    end

    # A backend that keeps its numbers elsewhere: in a field of the same name, and another form.
    defmodule Elsewhere, do: defstruct([:state])

    defmodule Nx do
      def backend_copy(%{data: %Elsewhere{state: nil}}, Nx.BinaryBackend), do: raise("the device is gone")
      def backend_copy(%{data: %Elsewhere{state: bytes}} = tensor, Nx.BinaryBackend),
        do: %{tensor | data: %Nx.BinaryBackend{state: :erlang.list_to_binary(bytes)}}
    end
    """)

    :ok
  end

  defp run(b, code, bindings \\ []) do
    {value, _bindings} = :erpc.call(b, Code, :eval_string, [code, bindings])
    value
  end

  defp pyeval(b, inp, code, value) do
    # Terms from another node are compared here.
    run(b, "Snex.pyeval(inp, code, %{\"x\" => value})", inp: inp, code: code, value: value)
  end

  defp tensor(type, shape, data, fields \\ %{}) do
    %{
      __struct__: Nx.Tensor,
      data: %{__struct__: Nx.BinaryBackend, state: data},
      type: type,
      shape: shape,
      names: List.duplicate(nil, tuple_size(shape)),
      vectorized_axes: [],
      donatable?: false
    }
    |> Map.merge(fields)
  end

  defp elsewhere(tensor, bytes), do: %{tensor | data: %{__struct__: Elsewhere, state: bytes}}

  for {encoder, environment} <- [native: %{}, pure: %{"SNEX_ENCODER" => "pure"}] do
    test "a tensor is an array in Python, and comes back as a tensor: the #{encoder} encoder", %{b: b} do
      inp = Peer.start_interpreter!(b, environment: unquote(Macro.escape(environment)))

      for {type, shape, data} <- [
            {{:f, 32}, {2, 3}, <<0::192>>},
            {{:s, 64}, {}, <<7::64-native>>},
            {{:u, 8}, {2, 2}, <<1, 2, 3, 4>>},
            {{:f, 64}, {100, 100}, :binary.copy(<<1.5::float-native>>, 10_000)}
          ] do
        tensor = tensor(type, shape, data)
        assert pyeval(b, inp, "return x", tensor) == {:ok, tensor}
        assert pyeval(b, inp, "return {'a': [x]}", [tensor]) == {:ok, %{"a" => [[tensor]]}}
        named = %{tensor | names: Enum.map(tensor.names, fn nil -> :a end)}

        assert pyeval(b, inp, "return x.tobytes(), list(x.shape)", named) ==
                 {:ok, {data, Tuple.to_list(shape)}}

        array = Array.new(data, type, shape)
        assert pyeval(b, inp, "return x", array) == {:ok, tensor}
      end

      assert {:ok, %Array{shape: {0}}} = pyeval(b, inp, "return memoryview(b'').cast('f')", nil)
      vectorized = tensor({:u, 8}, {3}, <<1, 2, 3, 4, 5, 6>>, %{vectorized_axes: [x: 2]})
      assert pyeval(b, inp, "return x.tolist()", vectorized) == {:ok, [[1, 2, 3], [4, 5, 6]]}
    end
  end

  test "Nx brings a tensor over that another backend has", %{b: b} do
    inp = Peer.start_interpreter!(b)
    here = tensor({:u, 8}, {2, 2}, <<1, 2, 3, 4>>)
    there = elsewhere(here, [1, 2, 3, 4])

    # The first time, nothing is known of its module. Where protocols are consolidated, as they are in a release, that teaches that it
    # has no encoder; so the second time it is known.
    for round <- 1..2 do
      if round == 2, do: :ok = :erpc.call(b, Snex.Native, :struct_plain, [Nx.Tensor])
      assert pyeval(b, inp, "return x", [there, here, there]) == {:ok, [here, here, here]}
      assert {:error, %Error{code: :call_failed} = error} = pyeval(b, inp, "return x", elsewhere(here, nil))
      assert error.reason == %RuntimeError{message: "the device is gone"}
      assert {:error, error} = pyeval(b, inp, "return x", [elsewhere(here, [1])])

      assert error.reason =~
               "the variable x[0]: an array of type u8 and shape {2, 2} has 4 bytes, and its data has 1"
    end
  end

  test "a tensor that was made by hand is refused, with its place", %{b: b} do
    inp = Peer.start_interpreter!(b)

    for {bad, said} <- [
          {tensor({:u, 8}, {3}, <<1>>), "has 3 bytes, and its data has 1"},
          {tensor({:u, 8}, {1}, <<1>>, %{vectorized_axes: [a: 2]}), "shape {2, 1} has 2 bytes"},
          {tensor({:u, 8}, {1}, <<1>>, %{vectorized_axes: :a}), "its shape is no tuple of sizes"},
          {tensor({:u, 4}, {2}, <<1>>), "convert it with Nx.as_type/2"},
          {tensor({:u, 2}, {2}, <<1::4>>), "convert it with Nx.as_type/2"},
          {tensor({:u, 8}, {1}, nil), "its data is no binary"}
        ] do
      assert {:error, error} = pyeval(b, inp, "return x", [bad])
      assert error.reason =~ "the variable x[0]: " and error.reason =~ said
    end

    for odd <- [%{tensor({:u, 8}, {1}, <<1>>) | data: nil}, %{__struct__: Nx.Tensor}] do
      assert {:exception, %ArgumentError{message: message}, _} =
               catch_error(pyeval(b, inp, "return x", odd))

      assert message =~ "cannot be encoded for Python"
    end
  end
end
