defmodule Snex.Bindings.Types do
  @moduledoc false
  # Python's annotations, as `snex._bindings.annotations` describes them, as types of Elixir.
  #
  # What goes to Python may always be a struct instead: an object that stands for such a value, a `Decimal`, an array. What comes
  # back is what `returns: :auto` makes of it.

  @typedoc "The classes that have bindings, by their full names in Python."
  @type bound() :: MapSet.t(String.t())

  @anything ["term()"]

  @doc """
  The type of an argument.
  """
  @spec argument([term()]) :: String.t()
  def argument(type), do: show(argument_or_struct(type))

  defp argument_or_struct(type) do
    if anything?(arg(type)), do: @anything, else: arg(type) ++ ["struct()"]
  end

  # Each returns the alternatives.
  defp arg(["int"]), do: ["integer()"]
  defp arg(["float"]), do: ["number()"]
  defp arg(["bool"]), do: ["boolean()"]
  defp arg(["str"]), do: ["String.t()", "atom()"]
  defp arg(["none"]), do: ["nil"]
  # An atom with the same name means the same in Python.
  defp arg(["literal", value]) when is_binary(value), do: ["String.t()", atom(value)]
  defp arg(["literal", value]), do: [inspect(value)]
  defp arg(["list", item]), do: ["[#{argument(item)}]"]

  defp arg([kind, item]) when kind in ~w(sequence iterable iterator set tuple_of),
    do: ["[#{argument(item)}]", "tuple()"]

  defp arg(["dict", key, value]), do: ["%{optional(#{argument(key)}) => #{argument(value)}}"]
  defp arg(["tuple", items]), do: ["{#{Enum.map_join(items, ", ", &argument/1)}}", "[term()]"]
  defp arg(["typed_dict", _fields]), do: ["%{optional(String.t() | atom()) => term()}"]
  defp arg(["callable"]), do: ["fun()"]
  defp arg(["self"]), do: ["Snex.Object.t()"]
  defp arg(["union", types]), do: Enum.flat_map(types, &arg/1)
  # Also classes: which struct has an encoder that makes one is anybody's to say.
  defp arg(_other), do: @anything

  @doc """
  The type of a result.
  """
  @spec result([term()], bound()) :: String.t()
  def result(type, bound), do: type |> res(bound) |> show()

  defp res(["int"], _bound), do: ["integer()"]
  defp res(["float"], _bound), do: ["Snex.Bindings.real()"]
  defp res(["bool"], _bound), do: ["boolean()"]
  defp res(["str"], _bound), do: ["String.t()"]
  defp res(["bytes"], _bound), do: ["binary()"]
  defp res(["none"], _bound), do: ["nil"]
  defp res(["literal", value], _bound) when is_binary(value), do: ["String.t()"]
  defp res(["literal", value], _bound), do: [inspect(value)]
  defp res(["list", item], bound), do: ["[#{result(item, bound)}]"]
  defp res(["tuple_of", _item], _bound), do: ["tuple()"]
  defp res(["tuple", items], bound), do: ["{#{Enum.map_join(items, ", ", &result(&1, bound))}}"]
  defp res(["set", item], bound), do: ["MapSet.t(#{result(item, bound)})"]
  defp res(["dict", key, value], bound), do: ["%{optional(#{result(key, bound)}) => #{result(value, bound)}}"]
  defp res(["typed_dict", _fields], _bound), do: ["%{optional(String.t()) => term()}"]
  defp res([kind | _], _bound) when kind in ~w(iterator callable), do: ["Snex.Object.t()"]
  defp res(["union", types], bound), do: Enum.flat_map(types, &res(&1, bound))
  defp res(type, bound), do: if(kept?(type, bound), do: ["Snex.Object.t()"], else: @anything)

  @doc """
  Whether a result of this type is an object that has functions here: it then stays in Python, whatever form it has in Elixir.
  """
  @spec kept?([term()], bound()) :: boolean()
  def kept?(["union", types], bound), do: Enum.all?(types, &kept?(&1, bound))
  def kept?(["self"], _bound), do: true
  def kept?(["class", name], bound), do: MapSet.member?(bound, name)
  def kept?(_type, _bound), do: false

  @doc """
  A type that has all of these in it.
  """
  @spec union([[term()]]) :: [term()]
  def union(types) do
    types = Enum.uniq(types)

    cond do
      types == [] or ["any"] in types -> ["any"]
      match?([_one], types) -> hd(types)
      true -> ["union", types]
    end
  end

  # Source code that has it makes the atom anyway.
  defp atom(text), do: if(String.length(text) <= 50, do: inspect(String.to_atom(text)), else: "atom()")

  # Where one is anything, all are.
  defp anything?(alternatives), do: Enum.any?(alternatives, &(&1 in @anything))

  defp show(alternatives),
    do: if(anything?(alternatives), do: hd(@anything), else: alternatives |> Enum.uniq() |> Enum.join(" | "))
end
