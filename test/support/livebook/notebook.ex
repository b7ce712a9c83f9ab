defmodule Snex.Livebook.Cell do
  @moduledoc """
  A cell: its code, the line of the notebook where that begins, and the outputs that the notebook keeps.
  """

  @enforce_keys [:id, :code, :line]
  defstruct [:id, :code, :line, :section, path: "notebook.livemd", outputs: []]
end

defmodule Snex.Livebook.Notebook do
  @moduledoc """
  What a `.livemd` file says: its cells of Elixir, and the outputs that it keeps of each.

  A notebook is Markdown. Blocks of Elixir are cells; an output is a block without a language, or of `text`, after a comment:

      <!-- livebook:{"output":true} -->

      ```
      42
      ```

  Other comments that begin with `livebook:` are settings. The cell before the first section is the setup cell.
  """

  alias Snex.Livebook.Cell

  @output ~s(<!-- livebook:{"output":true} -->)

  @doc """
  The cells of a file, in order.
  """
  def cells!(path) do
    for %Cell{} = cell <- path |> File.read!() |> parse(), do: %{cell | path: Path.expand(path)}
  end

  @doc """
  The cells in a text.
  """
  def parse(text) do
    lines = text |> String.split("\n") |> Enum.with_index(1)
    state = %{cells: [], section: nil, title: nil, output?: false}
    %{cells: cells} = text(lines, state)
    Enum.reverse(cells)
  end

  # Between blocks. `output?` tells that the next block is an output.
  defp text([], state), do: state

  defp text([{line, number} | rest], state) do
    cond do
      line == @output ->
        text(rest, %{state | output?: true})

      line =~ ~r/\A<!-- livebook:/ and not (line =~ ~r/\A<!-- livebook:\{.*\} -->\z/) ->
        raise "line #{number}: #{line} is no comment that Livebook understands"

      line =~ ~r/\A# / ->
        if state.title, do: raise("line #{number}: a notebook has one title")
        text(rest, %{state | title: line})

      line =~ ~r/\A## / ->
        text(rest, %{state | section: String.replace_prefix(line, "## ", "")})

      match = Regex.run(~r/\A(```+)(\S*)/, line) ->
        [_, fence, language] = match
        {block, rest} = block(rest, fence, number)
        text(rest, add(state, language, Enum.join(block, "\n"), number + 1))

      true ->
        text(rest, state)
    end
  end

  defp block(lines, fence, number) do
    case Enum.split_while(lines, fn {line, _number} -> line != fence end) do
      {_block, []} -> raise "line #{number}: this block has no end"
      {block, [_fence | rest]} -> {Enum.map(block, &elem(&1, 0)), rest}
    end
  end

  defp add(%{output?: true} = state, language, block, _number) when language in ["", "text"] do
    [%Cell{} = cell | cells] = state.cells
    %{state | cells: [%{cell | outputs: cell.outputs ++ [block]} | cells], output?: false}
  end

  defp add(%{output?: false} = state, "elixir", code, number) do
    if state.title == nil, do: raise("line #{number}: the title comes first")
    cell = %Cell{id: "cell-#{length(state.cells)}", code: code, line: number, section: state.section}
    %{state | cells: [cell | state.cells]}
  end

  # Markdown that is only shown.
  defp add(%{output?: false} = state, _language, _block, _number), do: state
end
