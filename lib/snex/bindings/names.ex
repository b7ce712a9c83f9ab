defmodule Snex.Bindings.Names do
  @moduledoc false
  # From Python's names to Elixir's. `Snex.Bindings` has the rule for users.

  # What Elixir gives a meaning of its own, or a module has already.
  @reserved ~w(after and catch do else end false fn in nil not or rescue true when) ++
              ~w(__info__ module_info behaviour_info __struct__ __functions__ __classes__ __mix_recompile__?) ++
              (:macros |> Kernel.SpecialForms.__info__() |> Enum.map(&Atom.to_string(elem(&1, 0))))

  @doc """
  The name of a function.

      iex> alias Snex.Bindings.Names
      iex> Enum.map(["mean", "HTTP_OK", "DataFrame", "end", "case", "_private"], &Names.function/1)
      ["mean", "http_ok", "data_frame", "end_", "case_", "_private"]
  """
  @spec function(String.t()) :: String.t()
  def function(name), do: name |> lower() |> allowed(&identifier?/1) |> free(@reserved)

  @doc """
  The last part of the name of a module.

      iex> alias Snex.Bindings.Names
      iex> Enum.map(["NormalDist", "ndarray", "int8", "dict_keys", "_Node", "linalg"], &Names.module/1)
      ["NormalDist", "Ndarray", "Int8", "DictKeys", "Node", "Linalg"]
  """
  @spec module(String.t()) :: String.t()
  def module(name) do
    name = String.trim_leading(name, "_")

    case Macro.camelize(name) do
      <<first, _::binary>> = camel when first in ?A..?Z -> allowed(camel, &alias?/1)
      other -> "X" <> allowed(other, &alias?("X" <> &1))
    end
  end

  @doc """
  Names of variables, each once.

      iex> Snex.Bindings.Names.variables(["a", "X", "x", "end", "opts"])
      ["a", "x", "x_", "end_", "opts_"]
  """
  @spec variables([String.t()]) :: [String.t()]
  def variables(names) do
    {names, _taken} =
      Enum.map_reduce(names, ["opts" | @reserved], fn name, taken ->
        # With an underscore in front, Elixir takes a variable for unused.
        name = name |> String.trim_leading("_") |> lower() |> allowed(&identifier?/1) |> free(taken)
        {name, [name | taken]}
      end)

    names
  end

  # Elixir's functions and variables begin with a small letter.
  defp lower(name) do
    cond do
      name == "" -> "arg"
      String.first(name) == String.downcase(String.first(name)) -> name
      String.upcase(name) == name -> String.downcase(name)
      true -> Macro.underscore(name)
    end
  end

  # Python allows letters that Elixir doesn't.
  defp allowed(name, allowed?) do
    if allowed?.(name),
      do: name,
      else: name |> String.to_charlist() |> Enum.map_join(&if(ascii?(&1), do: <<&1>>, else: "_"))
  end

  defp ascii?(char), do: char in ?a..?z or char in ?A..?Z or char in ?0..?9 or char == ?_

  defp identifier?(name), do: match?({:ok, {^name, _, nil}}, parse(name))
  defp alias?(name), do: match?({:ok, {:__aliases__, _, [^name]}}, parse(name))

  # No atom is made of the name.
  defp parse(name), do: Code.string_to_quoted(name, static_atoms_encoder: fn text, _meta -> {:ok, text} end)

  defp free(name, taken), do: if(name in taken, do: free(name <> "_", taken), else: name)
end
