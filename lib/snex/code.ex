defmodule Snex.Code do
  @moduledoc """
  Python code together with the file and the line that it comes from.

  If code is given as a string, its tracebacks name the file `<Snex.Code>`. With this struct, they name the file and
  line of the Elixir source; the sigils of `Snex.Sigils` are the easiest way to make one.

  `:src` may be iodata. `:line` is the line in `:file` at which `:src` starts. Code without a location has the file
  `<Snex.Code>` and the line 0; `nil` means the same.

      iex> %Snex.Code{src: ["return ", "6 * 7"], file: "answer.py", line: 1}
      %Snex.Code{src: ["return ", "6 * 7"], file: "answer.py", line: 1}
  """

  alias Snex.Arguments

  @no_file "<Snex.Code>"

  @type t() :: %__MODULE__{
          src: iodata(),
          file: String.t() | nil,
          line: non_neg_integer() | nil
        }

  @enforce_keys [:src]
  defstruct [:src, file: @no_file, line: 0]

  @doc """
  Converts code from a string or a struct to a struct whose `:src` is a string.

  `nil` is code that does nothing. Raises `ArgumentError` for anything else.

      iex> Snex.Code.wrap("return 6 * 7")
      %Snex.Code{src: "return 6 * 7", file: "<Snex.Code>", line: 0}
  """
  @spec wrap(String.t() | t() | nil) :: t()
  def wrap(code) do
    case Arguments.code(code) do
      {:ok, code} -> code
      {:error, message} -> raise ArgumentError, message
    end
  end

  @doc false
  # The file and line that Python gets: no file for code without a location.
  @spec location(t()) :: {String.t() | nil, non_neg_integer()}
  def location(%__MODULE__{file: file, line: line}), do: {if(file != @no_file, do: file), line || 0}

  defimpl String.Chars do
    def to_string(code), do: IO.iodata_to_binary(code.src)
  end
end
