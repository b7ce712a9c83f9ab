defmodule Snex.Markdown do
  @moduledoc """
  The Elixir in a Markdown file.
  """

  @doc """
  The blocks of Elixir in a file, in order, as `{line, code}`.
  """
  def elixir_blocks(path), do: for({"elixir", line, code} <- blocks(path), do: {line, code})

  @doc """
  All blocks in a file, in order, as `{language, line, content}`.
  """
  def blocks(path) do
    path
    |> File.stream!()
    |> Enum.with_index(1)
    |> Enum.reduce({nil, []}, fn
      {"```" <> language, line}, {nil, blocks} ->
        {{String.trim(language), line + 1, []}, blocks}

      {"```" <> _, _line}, {{language, start, lines}, blocks} ->
        {nil, [{language, start, join(lines)} | blocks]}

      {text, _line}, {{language, start, lines}, blocks} ->
        {{language, start, [text | lines]}, blocks}

      {_text, _line}, {nil, blocks} ->
        {nil, blocks}
    end)
    |> then(fn {nil, blocks} -> Enum.reverse(blocks) end)
  end

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
