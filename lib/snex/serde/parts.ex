defmodule Snex.Serde.Parts do
  @moduledoc false
  # Large binaries in a body from Python stay where they have arrived: `binary_to_term` would copy each of them.
  #
  # Before a body is decoded, they are taken out of it, and a mark is put in their place. Behind it, each place is filled with that
  # part of the body. This needs a look at each term, so it is done only for bodies in which few terms take much room.

  # Binaries of at least so many bytes stay where they are.
  @large 64 * 1024
  # At most so many terms are looked at. With more, decoding them takes as long as copying.
  @most 1_000

  @typedoc "Binaries, which marks refer to by their index."
  @type parts() :: tuple()

  # No value of Python's has a bitstring in it, unless it came from here. In external term format: a bitstring, its length in bytes, and the bits of the last one.
  @mark "snex.Part"

  @doc """
  Matches a mark.
  """
  defmacro mark(index), do: quote(do: <<unquote(@mark), unquote(index)::32, 1::1>>)

  @doc """
  Returns a body with marks in the place of its large binaries, and these. Without any of them it is the same body.
  """
  @spec split(binary()) :: {binary(), parts()}
  def split(<<131, _::binary>> = body) when byte_size(body) > @large do
    case look(body, 1, 1, @most, []) do
      [_ | _] = found -> cut(body, Enum.reverse(found))
      _none -> {body, {}}
    end
  end

  def split(body), do: {body, {}}

  # Looks at `left` terms from byte `at` on; returns where large binaries are, the last one first, or `:unclear`.
  defp look(_body, _at, 0, _most, found), do: found
  defp look(_body, _at, left, most, _found) when left > most, do: :unclear

  defp look(body, at, left, most, found) do
    rest = binary_part(body, at, min(10, byte_size(body) - at))

    case rest do
      <<?m, size::32, _::binary>> when size >= @large ->
        look(body, at + 5 + size, left - 1, most - 1, [{at, size} | found])

      _other ->
        case shape(rest) do
          {bytes, more} -> look(body, at + bytes, left - 1 + more, most - 1, found)
          :unclear -> :unclear
        end
    end
  end

  # The length of a term without those in it, and how many these are. Python makes no others often.
  defp shape(<<?m, size::32, _::binary>>), do: {5 + size, 0}
  defp shape(<<?a, _::binary>>), do: {2, 0}
  defp shape(<<?b, _::binary>>), do: {5, 0}
  defp shape(<<?n, size, _::binary>>), do: {3 + size, 0}
  defp shape(<<?o, size::32, _::binary>>), do: {6 + size, 0}
  defp shape(<<?k, size::16, _::binary>>), do: {3 + size, 0}
  defp shape(<<?F, _::binary>>), do: {9, 0}
  defp shape(<<?w, size, _::binary>>), do: {2 + size, 0}
  defp shape(<<?v, size::16, _::binary>>), do: {3 + size, 0}
  defp shape(<<?M, size::32, _::binary>>), do: {6 + size, 0}
  defp shape(<<?j, _::binary>>), do: {1, 0}
  defp shape(<<?l, count::32, _::binary>>), do: {5, count + 1}
  defp shape(<<?h, count, _::binary>>), do: {2, count}
  defp shape(<<?i, count::32, _::binary>>), do: {5, count}
  defp shape(<<?t, count::32, _::binary>>), do: {5, 2 * count}
  defp shape(_other), do: :unclear

  defp cut(body, found) do
    {pieces, {at, _count}} =
      Enum.map_reduce(found, {0, 0}, fn {place, size}, {at, index} ->
        <<131, mark::binary>> = :erlang.term_to_binary(mark(index))
        {[binary_part(body, at, place - at), mark], {place + 5 + size, index + 1}}
      end)

    small = IO.iodata_to_binary([pieces, binary_part(body, at, byte_size(body) - at)])
    {small, List.to_tuple(for {place, size} <- found, do: binary_part(body, place + 5, size))}
  end
end
