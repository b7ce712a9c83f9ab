defmodule Snex.ArrowTest do
  use ExUnit.Case, async: true

  alias Snex.Arrow

  doctest Snex.Arrow

  # Written by pyarrow: pa.table({"a": [1], "żółw": ["x"]}).
  @stream Base.decode64!(
            """
            /////6gAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAIAAABEAAAABAAAANT///8AAAEFEAAA
            ABwAAAAEAAAAAAAAAAcAAADFvMOzxYJ3AAQABAAEAAAAEAAUAAgABgAHAAwAAAAQABAAAAAAAAECEAAAABwAAAAEAAAAAAAAAAEA
            AABhAAAACAAMAAgABwAIAAAAAAAAAUAAAAD/////yAAAABQAAAAAAAAADAAWAAYABQAIAAwADAAAAAADBAAYAAAAGAAAAAAAAAAA
            AAoAGAAMAAQACAAKAAAAbAAAABAAAAABAAAAAAAAAAAAAAAFAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACAAAAAAAAAAIAAAA
            AAAAAAAAAAAAAAAACAAAAAAAAAAIAAAAAAAAABAAAAAAAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAAAAAAAABAAAAAAAA
            AAAAAAAAAAAAAQAAAAAAAAAAAAAAAQAAAHgAAAAAAAAA/////wAAAAA=
            """,
            ignore: :whitespace
          )

  test "shows its columns" do
    assert Arrow.columns(Arrow.new(@stream)) == {:ok, ["a", "żółw"]}
    assert inspect(Arrow.new(@stream)) == ~s(#Snex.Arrow<frame, #{byte_size(@stream)} bytes, ["a", "żółw"]>)
    assert inspect(Arrow.new([], :series)) == "#Snex.Arrow<series, 0 bytes>"
  end

  test "shows what it has been made of by hand" do
    assert inspect(%Arrow{data: :none}) == "#Snex.Arrow<frame, no stream>"
    assert inspect(%Arrow{data: "", kind: {}}) == "#Snex.Arrow<?, 0 bytes>"
  end

  test "a stream with any bytes exchanged has columns, or has none" do
    for at <- 0..(byte_size(@stream) - 1), byte <- [0, 1, 4, 127, 128, 255] do
      <<before::binary-size(at), _byte, rest::binary>> = @stream
      changed = Arrow.new([before, byte, rest])

      case Arrow.columns(changed) do
        {:ok, names} -> assert Enum.all?(names, &String.valid?/1)
        :error -> assert inspect(changed) == "#Snex.Arrow<frame, #{byte_size(@stream)} bytes>"
      end
    end
  end

  test "a stream with any offset or length exchanged has columns, or has none" do
    for at <- 0..(byte_size(@stream) - 4),
        word <- [0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF] do
      <<before::binary-size(at), _word::32, rest::binary>> = @stream

      case Arrow.columns(Arrow.new([before, <<word::32-little>>, rest])) do
        {:ok, names} -> assert Enum.all?(names, &String.valid?/1)
        :error -> :ok
      end
    end
  end

  test "a stream that is cut has columns, or has none" do
    for length <- 0..byte_size(@stream) do
      cut = Arrow.new(binary_part(@stream, 0, length))
      assert Arrow.columns(cut) in [{:ok, ["a", "żółw"]}, :error]
    end
  end

  test "names that share their bytes are an error" do
    # Ten thousand columns with the one long name.
    assert Arrow.columns(Arrow.new(shared(1))) == {:ok, [String.duplicate("n", 5_000)]}
    assert Arrow.columns(Arrow.new(shared(10_000))) == :error
  end

  test "a field that its table doesn't have is not read" do
    stream = shared(1)
    fields = <<6::16-little, 8::16-little, 4::16-little>>
    without_name = :binary.replace(stream, fields, <<4::16-little, 8::16-little, 4::16-little>>)
    assert without_name != stream
    assert Arrow.columns(Arrow.new(without_name)) == {:ok, [""]}
  end

  test "a message that is no schema has no columns" do
    assert Arrow.columns(Arrow.new(shared(1, 3))) == :error
  end

  # A message, mostly a schema, whose columns are all the same table.
  defp shared(count, type \\ 1) do
    name = String.duplicate("n", 5_000)

    # Tables of fields: of the message (type at 4, schema at 8), of the schema (columns at 4), of a column (name at 4).
    tables = <<10::16-little, 12::16-little, 0::16, 4::16-little, 8::16-little, 0::16>>
    tables = tables <> <<8::16-little, 8::16-little, 0::16, 4::16-little>>
    tables = tables <> <<6::16-little, 8::16-little, 4::16-little, 0::16>>
    base = 4 + byte_size(tables)
    message = <<base - 4::32-little, type, 0, 0, 0, 4::32-little>>
    schema_at = base + 12
    schema = <<schema_at - 16::32-little, 4::32-little>>
    column_at = schema_at + 8 + 4 + 4 * count

    offsets =
      for index <- 0..(count - 1), into: <<>>, do: <<column_at - (schema_at + 12 + 4 * index)::32-little>>

    column = <<column_at - 24::32-little, 4::32-little, 5_000::32-little, name::binary>>

    body =
      <<base::32-little, tables::binary, message::binary, schema::binary, count::32-little, offsets::binary,
        column::binary>>

    <<0xFFFFFFFF::32-little, byte_size(body)::32-little, body::binary>>
  end

  test "without Explorer, there is nothing to convert to" do
    assert_raise ArgumentError, ~r/no Explorer.*add {:explorer/, fn ->
      Arrow.to_explorer(Arrow.new(@stream))
    end

    assert_raise ArgumentError, ~r/expected an Explorer.DataFrame.*got: 1/, fn -> Arrow.from_explorer(1) end
  end
end
