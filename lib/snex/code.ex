defmodule Snex.Code do
  @moduledoc """
  Python code that knows where it stands.

  Tracebacks of code given as a string name the file `<Snex.Code>`. With this struct, most easily made by the sigils of
  `Snex.Sigils`, they name the file and line of the Elixir source.

  `:src` may be iodata. `:line` is the line in `:file` of the first line of `:src`.

      iex> %Snex.Code{src: ["return ", "6 * 7"], file: "answer.py", line: 1}
      %Snex.Code{src: ["return ", "6 * 7"], file: "answer.py", line: 1}
  """

  @type t() :: %__MODULE__{src: iodata(), file: String.t() | nil, line: pos_integer()}

  @enforce_keys [:src]
  defstruct [:src, file: nil, line: 1]

  defimpl String.Chars do
    def to_string(code), do: IO.iodata_to_binary(code.src)
  end
end
