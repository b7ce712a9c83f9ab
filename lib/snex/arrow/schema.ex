defmodule Snex.Arrow.Schema do
  @moduledoc false
  # The names of the columns of an Arrow stream, whose first message is a schema in the format of FlatBuffers. Nothing that is
  # read is trusted: an offset that leads nowhere, or too many columns for so many bytes, is an error.
  #
  # A table begins with a distance back to its table of fields: two lengths, then for each field where it is in the table, or 0.
  # An offset counts from its own place.

  # The first message of a stream without this mark is of a version from before 1.0.
  @mark 0xFFFFFFFF
  # Of tables in Arrow's `Message.fbs` and `Schema.fbs`: numbers of their fields.
  @header_type 1
  @header 2
  @schema 1
  @fields 1
  @name 0

  @doc """
  Names of the columns.
  """
  @spec names(binary()) :: {:ok, [String.t()]} | :error
  def names(<<@mark::32-little, size::32-little, message::binary-size(size), _rest::binary>>) do
    message_table = follow(message, 0)
    <<@schema>> = binary_part(message, field(message, message_table, @header_type), 1)
    schema = follow(message, field(message, message_table, @header))
    vector = follow(message, field(message, schema, @fields))
    count = u32(message, vector)
    # Each has an offset there, and bytes of its own.
    true = vector + 4 * (count + 1) <= size

    {names, _left} =
      Enum.map_reduce(1..count//1, size, fn index, left ->
        name = name(message, follow(message, vector + 4 * index), left)
        {name, left - byte_size(name)}
      end)

    {:ok, names}
  rescue
    # Of what is no such message.
    _error in [ArgumentError, MatchError] -> :error
  end

  def names(_other), do: :error

  defp name(message, table, most) do
    case place(message, table, @name) do
      0 ->
        ""

      place ->
        text = follow(message, table + place)
        name = binary_part(message, text + 4, u32(message, text))
        true = byte_size(name) <= most and String.valid?(name)
        name
    end
  end

  defp field(message, table, number) do
    place = place(message, table, number)
    true = place != 0
    table + place
  end

  defp place(message, table, number) do
    <<back::32-little-signed>> = binary_part(message, table, 4)
    fields = table - back
    place = 4 + 2 * number
    if place < u16(message, fields), do: u16(message, fields + place), else: 0
  end

  defp follow(message, place), do: place + u32(message, place)

  defp u16(message, place) do
    <<number::16-little>> = binary_part(message, place, 2)
    number
  end

  defp u32(message, place) do
    <<number::32-little>> = binary_part(message, place, 4)
    number
  end
end
