defmodule Snex.Markdown do
  @moduledoc """
  The Elixir in a Markdown file.
  """

  @doc """
  The blocks of Elixir in a file, in order, as `{line, code}`, without those that need a library.

  Such a block follows a line `<!-- with LIBRARY -->`. (ExDoc takes a fence with more than one word for text.)
  """
  def elixir_blocks(path), do: for({"elixir", line, code} <- blocks(path), do: {line, code})

  @doc """
  All blocks in a file, in order, as `{language, line, content}`; the language is `{language, library}` if one is needed.
  """
  def blocks(path) do
    path
    |> File.stream!()
    |> Enum.with_index(1)
    # With the blocks goes the one that has begun, or the line before.
    |> Enum.reduce({"", []}, fn
      {"```" <> language, line}, {before, blocks} when is_binary(before) ->
        {{opened(language, before), line + 1, []}, blocks}

      {"```" <> _, _line}, {{language, start, lines}, blocks} ->
        {"", [{language, start, join(lines)} | blocks]}

      {text, _line}, {{language, start, lines}, blocks} ->
        {{language, start, [text | lines]}, blocks}

      {text, _line}, {_before, blocks} ->
        {text, blocks}
    end)
    |> then(fn {last, blocks} when is_binary(last) -> Enum.reverse(blocks) end)
  end

  # `before` is the line before the fence.
  defp opened(language, "<!-- with " <> library), do: {String.trim(language), library}
  defp opened(language, _before), do: String.trim(language)

  defp join(lines), do: lines |> Enum.reverse() |> Enum.join()

  @doc """
  The text of a page without its blocks of code.
  """
  def prose(text), do: String.replace(text, ~r/^```.*?^```$/ms, "")

  @doc """
  Evaluates blocks one after the other, with the bindings of each carried into the next.
  """
  def evaluate(blocks, path) do
    Enum.reduce(blocks, [], fn {line, code}, bindings ->
      {_value, bindings} = Code.eval_string(code, bindings, file: path, line: line)
      bindings
    end)
  end
end
