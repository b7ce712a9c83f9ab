defmodule Snex.Array.Numbers do
  @moduledoc false
  # Numbers in binaries, in the byte order of the machine. Values that Elixir's floats cannot have (infinities, NaN) are atoms.

  @typep type() :: Snex.Array.type()
  @typep value() :: Snex.Array.number_or_special()

  @doc """
  All numbers of a binary. Its length is a multiple of the type's.
  """
  @spec read(binary(), type()) :: [value()]
  def read(data, {:u, bits}), do: for(<<number::size(bits)-unsigned-native <- data>>, do: number)
  def read(data, {:s, bits}), do: for(<<number::size(bits)-signed-native <- data>>, do: number)

  def read(data, {:c, bits}) do
    half = div(bits, 2)
    for <<re::size(half)-native, im::size(half)-native <- data>>, do: {float(half, re), float(half, im)}
  end

  # The upper half of a float of 32 bits, and of one of 16.
  def read(data, {:bf, 16}), do: for(<<number::16-native <- data>>, do: float(32, Bitwise.bsl(number, 16)))
  def read(data, {:f, 8}), do: for(<<number <- data>>, do: float(16, Bitwise.bsl(number, 8)))
  def read(data, {:f8_e4m3fn, 8}), do: for(<<number::bits-8 <- data>>, do: e4m3fn(number))
  def read(data, {:f, bits}), do: for(<<number::size(bits)-native <- data>>, do: float(bits, number))

  # A float whose bits are those of an integer.
  defp float(bits, integer) do
    case <<integer::size(bits)>> do
      <<number::float-size(bits)>> -> number
      <<sign::1, rest::bits>> -> special(sign, rest, bits)
    end
  end

  @exponents %{16 => 5, 32 => 8, 64 => 11}

  defp special(sign, rest, bits) do
    exponent = @exponents[bits]
    <<_exponent::size(exponent), fraction::bits>> = rest
    length = bit_size(fraction)
    <<fraction::size(length)>> = fraction

    case {sign, fraction} do
      {0, 0} -> :inf
      {1, 0} -> :"-inf"
      _nan -> :nan
    end
  end

  defp e4m3fn(<<_sign::1, 0x7F::7>>), do: :nan
  defp e4m3fn(<<sign::1, 0::4, fraction::3>>), do: sign(sign, fraction / 512)

  defp e4m3fn(<<sign::1, exponent::4, fraction::3>>),
    do: sign(sign, (1 + fraction / 8) * :math.pow(2, exponent - 7))

  defp sign(0, number), do: number
  defp sign(1, number), do: -number

  @doc """
  The type of numbers for which none is given.
  """
  @spec type_of([value()]) :: type()
  def type_of(numbers) do
    cond do
      Enum.all?(numbers, &is_integer/1) -> {:s, 64}
      Enum.any?(numbers, &is_tuple/1) -> {:c, 128}
      true -> {:f, 64}
    end
  end

  @doc """
  A binary of numbers. Raises `ArgumentError` for one that the type doesn't have.
  """
  @spec write([value()], type()) :: binary()
  def write(_numbers, {kind, 8} = type) when kind in [:f, :f8_e4m3fn],
    do: raise(ArgumentError, "numbers of type #{inspect(type)} cannot be written from a list")

  def write(numbers, type), do: for(number <- numbers, into: <<>>, do: one(number, type))

  defp one(number, {:u, bits}) when is_integer(number) and number >= 0 and Bitwise.bsr(number, bits) == 0,
    do: <<number::size(bits)-native>>

  defp one(number, {:s, bits})
       when is_integer(number) and Bitwise.bsr(number, bits - 1) in [0, -1],
       do: <<number::size(bits)-native>>

  defp one({re, im}, {:c, bits}), do: one(re, {:f, div(bits, 2)}) <> one(im, {:f, div(bits, 2)})
  defp one(number, {:c, bits}) when not is_tuple(number), do: one({number, 0}, {:c, bits})

  defp one(number, {:bf, 16}) do
    <<upper::16, lower::16>> = <<integer(number, 32)::32>>
    # Rounds to the nearest, ties to even. Of infinities and NaN, the lower half is 0.
    up = if lower > 0x8000 or (lower == 0x8000 and Bitwise.band(upper, 1) == 1), do: 1, else: 0
    <<upper + up::16-native>>
  end

  defp one(number, {:f, bits}), do: <<integer(number, bits)::size(bits)-native>>

  defp one(other, type),
    do: raise(ArgumentError, "expected a number of type #{inspect(type)}, got: #{inspect(other)}")

  # The bits of a float.
  defp integer(:inf, bits), do: infinity(bits)
  defp integer(:"-inf", bits), do: Bitwise.bor(infinity(bits), Bitwise.bsl(1, bits - 1))
  defp integer(:nan, bits), do: Bitwise.bor(infinity(bits), Bitwise.bsl(1, bits - 2 - @exponents[bits]))

  defp integer(number, bits) when is_number(number) do
    <<integer::size(bits)>> = <<number::float-size(bits)>>
    integer
  end

  defp integer(other, bits),
    do: raise(ArgumentError, "expected a float of #{bits} bits, got: #{inspect(other)}")

  defp infinity(bits), do: Bitwise.bsl(Bitwise.bsl(1, @exponents[bits]) - 1, bits - 1 - @exponents[bits])
end
