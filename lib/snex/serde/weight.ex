defmodule Snex.Serde.Weight do
  @moduledoc false
  # Whether the native code may take a term on a normal scheduler.
  #
  # The native code cannot tell by itself before it is too late: the VM gives it a binary that does not begin at a byte, a
  # bitstring or a large integer only as a copy, whatever its size, and it cannot pause. So every term is weighed here, where
  # the VM can pause, before it is handed over. A term that is not light goes to a dirty scheduler at once, which costs some
  # microseconds more.

  # The most that a light term weighs. Native code takes 20 to 100 ns for one unit, so well below a millisecond for all.
  @most 2_000

  # As many bits of a binary weigh as much as visiting a term: 64 bytes.
  @bits 512

  # An integer up to here needs no memory of its own.
  @small Bitwise.bsl(1, 59) - 1

  # One up to here, of 1 KiB, is still light. The comparison takes no time: the longer of two integers is the larger.
  @long Bitwise.bsl(1, 8 * 1024)

  @doc """
  Whether the native code is done with `term` in a moment.

      iex> Snex.Serde.Weight.light?(%{"x" => [1, 2.0, :three, "four"]})
      true
      iex> Snex.Serde.Weight.light?(String.duplicate("x", 1_000_000))
      false
  """
  @spec light?(term()) :: boolean()
  def light?(term), do: left(term, @most) > 0

  # What is left of `left` after `term`; the visit ends when nothing is.
  defp left(_term, left) when left <= 0, do: left
  defp left(term, left) when is_integer(term) and term >= -@small and term <= @small, do: left - 1
  defp left(term, left) when is_bitstring(term), do: left - 1 - div(bit_size(term), @bits)
  # Its tail may be no list.
  defp left([head | tail], left), do: left(tail, left(head, left))
  defp left(term, left) when is_atom(term) or is_float(term) or term == [], do: left - 1

  defp left(term, left) when is_tuple(term) and tuple_size(term) < left,
    do: left(Tuple.to_list(term), left - 1)

  defp left(term, left) when is_map(term) and map_size(term) < left,
    do: pairs(:maps.to_list(term), left - 1)

  defp left(term, left) when is_integer(term) and term > -@long and term < @long, do: left - 20
  defp left(term, left) when is_pid(term) or is_reference(term) or is_port(term), do: left - 4

  # A large integer, tuple or map, or a function, which may hold anything.
  defp left(_term, _left), do: 0

  defp pairs([{key, value} | rest], left) when left > 0, do: pairs(rest, left(value, left(key, left)))
  defp pairs(_rest, left), do: left
end
