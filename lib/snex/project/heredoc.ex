defmodule Snex.Project.Heredoc do
  # A text inside a source file, where a heredoc has indented it.
  @moduledoc false

  @doc """
  Replaces the text `old`, which occurs once in `source`, every line behind the same white space, by `new`.

      iex> Snex.Project.Heredoc.replace("  \\"\\"\\"\\n  a\\n\\n  b\\n  \\"\\"\\"\\n", "a\\n\\nb\\n", "c\\n")
      {:ok, "  \\"\\"\\"\\n  c\\n  \\"\\"\\"\\n"}
  """
  @spec replace(String.t(), String.t(), String.t()) :: {:ok, String.t()} | :error
  def replace(source, old, new) do
    [first | _] = lines = String.split(String.trim_trailing(old, "\n"), "\n")

    candidates =
      for [indent] <- Regex.scan(~r/^([ \t]*)#{Regex.escape(first)}$/m, source, capture: :all_but_first),
          block = Enum.map_join(lines, "\n", &indented(&1, indent)),
          [_before, _after] = parts <- [String.split(source, block)],
          uniq: true,
          do: {indent, parts}

    case candidates do
      [{indent, [head, tail]}] ->
        block =
          new
          |> String.trim_trailing("\n")
          |> String.split("\n")
          |> Enum.map_join("\n", &indented(&1, indent))

        {:ok, head <> block <> tail}

      _ ->
        :error
    end
  end

  defp indented("", _indent), do: ""
  defp indented(line, indent), do: indent <> line
end
