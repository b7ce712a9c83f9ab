defmodule Snex.Array do
  @moduledoc """
  An array of numbers, as in numpy and Nx: a type, a shape, and a binary with the numbers.

  Python arrays arrive as `Nx.Tensor` if the application has Nx, and otherwise as `Snex.Array`. In Python, both become a
  `numpy.ndarray`; see [Data](data.md#arrays).

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> code = "return memoryview(bytes(range(6))).cast('B', (2, 3))"
      iex> {:ok, array} = Snex.pyeval(interpreter, code)
      iex> array
      #Snex.Array<u8[2][3]>
      iex> Snex.Array.to_list(array)
      [[0, 1, 2], [3, 4, 5]]

  ## Fields

    * `type`: the type of the numbers, see `t:type/0`
    * `shape`: a tuple with the length of each axis; `{}` for a single number
    * `data`: the numbers, in C order (the last axis varies fastest) and in the byte order of the machine

  The binary of an array in a large reply is a part of that reply, and keeps all of it in memory. `:binary.copy/1` makes
  a binary of its own.
  """

  alias Snex.Array.Numbers

  @enforce_keys [:type, :shape, :data]
  defstruct [:type, :shape, :data]

  @typedoc """
  The kind of the numbers, and how many bits each has: signed and unsigned integers, floats, floats in Google's
  `bfloat16` format, and complex numbers. The types are the same as in Nx. Python's booleans are `{:u, 8}`.

  `{:f, 8}` has an exponent of five bits (`float8_e5m2`), `{:f8_e4m3fn, 8}` one of four.
  """
  @type type() ::
          {:s, 8 | 16 | 32 | 64}
          | {:u, 8 | 16 | 32 | 64}
          | {:f, 8 | 16 | 32 | 64}
          | {:f8_e4m3fn, 8}
          | {:bf, 16}
          | {:c, 64 | 128}

  @typedoc "The length of each axis."
  @type shape() :: tuple()

  @typedoc "A number as `to_list/1` returns it. A complex number is a tuple of its real and imaginary part."
  @type number_or_special() :: number() | :inf | :"-inf" | :nan | {float() | atom(), float() | atom()}

  @type t() :: %__MODULE__{type: type(), shape: shape(), data: binary()}

  @types for(kind <- [:s, :u, :f], bits <- [8, 16, 32, 64], do: {kind, bits}) ++
           [bf: 16, c: 64, c: 128, f8_e4m3fn: 8]

  @doc """
  Returns an array of the numbers in a binary.

  Raises `ArgumentError` if the length of the binary does not match the type and the shape, or if these are invalid.

      iex> Snex.Array.new(<<1, 2, 3, 4>>, {:u, 8}, {2, 2})
      #Snex.Array<u8[2][2]>
      iex> Snex.Array.new(<<1>>, {:u, 8}, {2})
      ** (ArgumentError) an array of type {:u, 8} and shape {2} has 2 bytes, got a binary of 1
  """
  @spec new(binary(), type(), shape()) :: t()
  def new(data, type, shape), do: check!(%__MODULE__{type: type, shape: shape, data: data})

  @doc """
  Returns an array of the numbers in a list, or in nested lists that have the same length on each level.

  The default type is `{:s, 64}` if all numbers are integers, and `{:f, 64}` otherwise. Raises `ArgumentError` for lists
  of different lengths and for numbers that the type doesn't have. Eight-bit floats are not supported here.

      iex> Snex.Array.from_list([[1, 2], [3, 4]], {:f, 32})
      #Snex.Array<f32[2][2]>
      iex> Snex.Array.from_list([1, 2])
      #Snex.Array<s64[2]>
  """
  @spec from_list([number_or_special() | list()] | number_or_special(), type() | nil) :: t()
  def from_list(list, type \\ nil) do
    shape = shape_of(list)
    numbers = flatten(list, shape)
    type = type || Numbers.type_of(numbers)
    new(Numbers.write(numbers, check_type!(type)), type, List.to_tuple(shape))
  end

  @doc """
  Returns the numbers as nested lists, or as a single number if the shape is `{}`.

  Floats that Elixir does not have are `:inf`, `:"-inf"` and `:nan`. Raises `ArgumentError` if type, shape and data
  don't match.

      iex> array = Snex.Array.new(<<1.5::float-32-native, 0::32>>, {:f, 32}, {2, 1})
      iex> Snex.Array.to_list(array)
      [[1.5], [0.0]]
  """
  @spec to_list(t()) :: number_or_special() | list()
  def to_list(%__MODULE__{} = array) do
    %{type: type, shape: shape, data: data} = check!(array)
    nest(Numbers.read(data, type), tl_or_empty(Tuple.to_list(shape)), shape)
  end

  @doc """
  Returns the numbers as a binary: the field `data`.

      iex> Snex.Array.to_binary(Snex.Array.from_list([1, 2], {:u, 8}))
      <<1, 2>>
  """
  @spec to_binary(t()) :: binary()
  def to_binary(%__MODULE__{data: data}), do: data

  @doc """
  Returns how many numbers the array has.

      iex> Snex.Array.size(Snex.Array.from_list([[1, 2, 3], [4, 5, 6]]))
      6
  """
  @spec size(t()) :: non_neg_integer()
  def size(%__MODULE__{shape: shape}), do: Tuple.product(shape)

  @doc """
  Returns the array as an `Nx.Tensor`, on Nx's default backend.

  On `Nx.BinaryBackend` nothing is copied.

  Raises `ArgumentError` if the application has no Nx, if type, shape and data don't match, and for an array without
  elements, which Nx doesn't support.

      Snex.Array.to_nx(array)
  """
  @spec to_nx(t()) :: struct()
  def to_nx(%__MODULE__{} = array) do
    %{type: type, shape: shape, data: data} = check!(array)
    nx!()
    if data == "", do: raise(ArgumentError, "Nx has no tensors without elements, got: #{inspect(array)}")
    apply(Nx, :reshape, [apply(Nx, :from_binary, [data, type]), shape])
  end

  @doc """
  Returns an `Nx.Tensor`, of any backend, as an array.

  Names of axes are lost, and vectorized axes come first, as with `Nx.devectorize/1`.

  Raises `ArgumentError` if the application has no Nx, and for integers with fewer than eight bits.

      Snex.Array.from_nx(Nx.iota({2, 3}))
  """
  @spec from_nx(struct()) :: t()
  def from_nx(tensor) do
    nx!()
    tensor = apply(Nx, :devectorize, [tensor])
    %{type: type, shape: shape} = tensor
    new(apply(Nx, :to_binary, [tensor]), type, shape)
  end

  defp nx! do
    if not Code.ensure_loaded?(Nx) do
      raise ArgumentError, "the application has no Nx; add {:nx, \"~> 0.9\"} to its dependencies"
    end
  end

  defp check!(%{type: type, shape: shape, data: data} = array) do
    {_kind, bits} = check_type!(type)

    if not (is_tuple(shape) and shape |> Tuple.to_list() |> Enum.all?(&(is_integer(&1) and &1 >= 0))) do
      raise ArgumentError, "expected a tuple of lengths as shape, got: #{inspect(shape, limit: 10)}"
    end

    if not is_binary(data) do
      raise ArgumentError, "expected a binary as data, got: #{inspect(data, limit: 10, printable_limit: 100)}"
    end

    bytes = Tuple.product(shape) * div(bits, 8)

    if byte_size(data) != bytes do
      raise ArgumentError,
            "an array of type #{inspect(type)} and shape #{inspect(shape)} has #{bytes} bytes, " <>
              "got a binary of #{byte_size(data)}"
    end

    array
  end

  defp check_type!(type) when type in @types, do: type

  defp check_type!(other) do
    raise ArgumentError,
          "expected a type such as {:f, 32}, one of #{inspect(@types, limit: :infinity)}, got: " <>
            inspect(other, limit: 10, printable_limit: 100)
  end

  defp shape_of([]), do: [0]
  defp shape_of([first | _] = list), do: [length(list) | if(is_list(first), do: shape_of(first), else: [])]
  defp shape_of(_number), do: []

  defp flatten(number, []) when not is_list(number), do: [number]
  defp flatten(list, [length]) when is_list(list) and length(list) == length, do: Enum.map(list, &leaf!/1)

  defp flatten(list, [length | rest]) when is_list(list) and length(list) == length,
    do: Enum.flat_map(list, &flatten(&1, rest))

  defp flatten(_other, _shape),
    do: raise(ArgumentError, "expected lists with the same length on each level")

  defp leaf!(list) when is_list(list), do: flatten(list, [])
  defp leaf!(number), do: number

  defp tl_or_empty([]), do: []
  defp tl_or_empty([_first | rest]), do: rest

  # From the innermost axis outwards: the first axis is what remains.
  defp nest([number], _inner, {}), do: number

  defp nest(numbers, inner, shape) do
    if Tuple.product(shape) == 0,
      do: empty(Tuple.to_list(shape)),
      else: inner |> Enum.reverse() |> Enum.reduce(numbers, &Enum.chunk_every(&2, &1))
  end

  defp empty([0 | _rest]), do: []
  defp empty([length | rest]), do: List.duplicate(empty(rest), length)

  defimpl Inspect do
    # Also of one that was made by hand, with anything in it.
    def inspect(%{type: {kind, bits}, shape: shape, data: data}, _opts)
        when is_atom(kind) and is_integer(bits) and is_tuple(shape) and is_binary(data) do
      name = if kind == :f8_e4m3fn, do: kind, else: "#{kind}#{bits}"
      "#Snex.Array<#{name}#{for length <- Tuple.to_list(shape), do: "[#{Kernel.inspect(length)}]"}>"
    end

    def inspect(array, opts), do: Inspect.Any.inspect(array, %{opts | limit: 5, printable_limit: 50})
  end
end
