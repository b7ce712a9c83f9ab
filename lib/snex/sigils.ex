defmodule Snex.Sigils do
  @moduledoc """
  Sigils for Python code: `~p` supports interpolation and escapes; `~P` and `~PY` take the text as it is.

  They return a `Snex.Code` with the file and line of the literal, so that Python's tracebacks point into the Elixir
  source.

      iex> import Snex.Sigils
      iex> code = ~P"return 40 + 2"
      iex> {code.src, Path.basename(code.file)}
      {"return 40 + 2", "sigils.ex"}
      iex> to_string(~p"return \#{6 * 7}")
      "return 42"
  """

  alias Snex.Code

  @doc "Returns Python code, with interpolation and escapes."
  defmacro sigil_p({:<<>>, meta, pieces}, _modifiers) do
    code({:<<>>, meta, unescape(pieces)}, meta, __CALLER__)
  end

  @doc "Returns Python code as it is written."
  defmacro sigil_P({:<<>>, meta, [source]}, _modifiers) when is_binary(source) do
    code(source, meta, __CALLER__)
  end

  @doc "Like `sigil_P/2`, under the name by which editors recognise Python."
  defmacro sigil_PY({:<<>>, meta, [source]}, _modifiers) when is_binary(source) do
    code(source, meta, __CALLER__)
  end

  defp unescape(pieces) do
    for piece <- pieces, do: if(is_binary(piece), do: Macro.unescape_string(piece), else: piece)
  end

  defp code(source, meta, caller) do
    # The text of a heredoc starts on the line after its opening quotes.
    heredoc = if Keyword.has_key?(meta, :indentation), do: 1, else: 0
    line = Keyword.get(meta, :line, caller.line) + heredoc

    quote do
      %Code{src: unquote(source), file: unquote(caller.file), line: unquote(line)}
    end
  end
end
