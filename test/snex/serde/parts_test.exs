defmodule Snex.Serde.PartsTest do
  use ExUnit.Case, async: true

  alias Snex.Serde.Decoder
  alias Snex.Serde.Parts

  require Parts

  @large :binary.copy("large", 20_000)

  defp body(term), do: :erlang.term_to_binary(term)

  defp decode(body) do
    {:ok, term} = Decoder.decode(body, [])
    term
  end

  # Whether a binary is a part of another one.
  defp part?(binary), do: :binary.referenced_byte_size(binary) > byte_size(binary)

  test "large binaries anywhere are parts of the body, and all else is as it was" do
    for term <- [
          [@large],
          {@large, @large},
          %{"a" => @large, b: [1, 2.5, -3, 2 ** 70, nil, "small", {@large, []}]},
          %{@large => 1},
          %Snex.Array{type: {:u, 8}, shape: {100_000}, data: @large},
          List.duplicate(@large, 20),
          [:"#{String.duplicate("ä", 200)}", 2 ** 3000, <<1::1>>, @large],
          List.to_tuple(Enum.to_list(1..300) ++ [@large])
        ] do
      body = body(term)
      assert decode(body) === term
      {small, parts} = Parts.split(body)
      assert tuple_size(parts) > 0
      assert byte_size(small) < 10_000
      for part <- Tuple.to_list(parts), do: assert(part == @large and part?(part))
    end

    [array] = decode(body([%{data: @large}]))
    assert part?(array.data)
  end

  test "bodies of many terms, of others, and of no large binaries are decoded whole" do
    for term <- [
          Enum.to_list(1..100_000),
          List.duplicate("small", 100_000),
          Enum.to_list(1..2000) ++ [@large],
          [self(), @large],
          [make_ref(), @large],
          [[1 | 2], @large, &is_list/1],
          "x",
          []
        ] do
      body = body(term)
      assert Parts.split(body) == {body, {}}
      assert decode(body) === term
    end
  end

  test "a body that is cut or changed anywhere is an error, or another term" do
    body = body({%{"a" => @large, 1 => [2, @large]}, :ok})
    places = Enum.to_list(1..60) ++ Enum.to_list(100_010..100_060)

    for place <- places, value <- [0, 1, 97, 104, 105, 108, 109, 116, 119, 255] do
      <<before::binary-size(place), _, rest::binary>> = body

      for changed <- [before, <<before::binary, value>>, <<before::binary, value, rest::binary>>] do
        expected =
          try do
            {:ok, :erlang.binary_to_term(changed)}
          rescue
            ArgumentError -> :error
          end

        case Decoder.decode(changed, []) do
          {:ok, term} -> assert {:ok, term} === expected
          {:error, %Snex.Error{code: :internal_error}} -> assert expected == :error
        end
      end
    end
  end

  test "a mark that Python has written means nothing, or a part of its own body" do
    mark = Parts.mark(0)
    assert decode(body(mark)) == mark
    assert decode(body([mark, "small"])) == [mark, "small"]
    assert decode(body([mark, Parts.mark(1), @large])) == [@large, Parts.mark(1), @large]
  end

  test "no atom is made where none may be" do
    new = "an atom that is new #{System.unique_integer([:positive])}"
    body = <<131, 108, 0, 0, 0, 2, 119, byte_size(new), new::binary, 109, 70_000::32, 0::560_000, 106>>
    assert {:error, %Snex.Error{reason: reason}} = Decoder.decode(body, [:safe])
    assert reason =~ "perhaps because it names an atom that does not exist"
    assert_raise ArgumentError, fn -> String.to_existing_atom(new) end
  end
end
