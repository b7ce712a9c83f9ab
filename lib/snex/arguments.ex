defmodule Snex.Arguments do
  @moduledoc false
  # Code and variables, as they are given to `Snex.pyeval/4`, `Snex.make_env/3` and as an init script. Variables may be secrets:
  # no complaint shows their values.

  alias Snex.Code

  @doc """
  Code in its one form, or what is wrong with it.
  """
  @spec code(term()) :: {:ok, Code.t()} | {:error, String.t()}
  def code(nil), do: {:ok, %Code{src: ""}}
  def code(source) when is_binary(source), do: {:ok, %Code{src: source}}

  def code(%Code{file: file, line: line})
      when not ((is_binary(file) or file == nil) and ((is_integer(line) and line >= 0) or line == nil)) do
    {:error,
     "expected the :file of a Snex.Code to be a string, and its :line to be a number, got: #{show({file, line})}"}
  end

  def code(%Code{src: source} = code) when is_binary(source), do: {:ok, code}

  def code(%Code{src: source} = code) do
    {:ok, %{code | src: IO.iodata_to_binary(source)}}
  rescue
    ArgumentError ->
      {:error, "expected the :src of a Snex.Code to be a string or iodata, got: #{show(source)}"}
  end

  def code(other), do: {:error, "expected code as a string or a Snex.Code, got: #{show(other)}"}

  @doc """
  Variables, or what is wrong with them. Their names are checked one by one when they are encoded; see `bad_name/1`.
  """
  @spec vars(term()) :: {:ok, map()} | {:error, String.t()}
  def vars(vars) when is_map(vars) and not is_struct(vars), do: {:ok, vars}

  def vars([{name, _value} | _rest] = vars) do
    if Keyword.keyword?(vars),
      do: {:error, "expected variables as a map with string keys, got a keyword list; #{example(name)}"},
      else: {:error, "expected variables as a map with string keys, got a list"}
  end

  def vars(other) when is_list(other) or is_tuple(other) or is_struct(other),
    do: {:error, "expected variables as a map with string keys, got: #{kind(other)}"}

  def vars(other), do: {:error, "expected variables as a map with string keys, got: #{show(other)}"}

  @doc """
  The first name that no variable can have.
  """
  @spec find_bad_name(map()) :: {:ok, term()} | nil
  def find_bad_name(vars) do
    Enum.find_value(vars, fn {name, _value} ->
      if not (is_binary(name) and String.valid?(name)), do: {:ok, name}
    end)
  end

  @doc """
  What to say of such a name.
  """
  @spec bad_name(term()) :: String.t()
  def bad_name(name) do
    hint = if is_atom(name), do: "; #{example(name)}"
    "names of variables have to be strings in UTF-8, got: #{show(name)}#{hint}"
  end

  @doc """
  How to write a variable.
  """
  @spec example(atom()) :: String.t()
  def example(name), do: "write %{#{inspect(to_string(name))} => ...}"

  defp kind(%module{}), do: "a struct of #{inspect(module)}"
  defp kind(list) when is_list(list), do: "a list"
  defp kind(tuple) when is_tuple(tuple), do: "a tuple"

  @doc """
  A term, as complaints show it.
  """
  @spec show(term()) :: String.t()
  def show(term), do: inspect(term, limit: 10, printable_limit: 100)
end
