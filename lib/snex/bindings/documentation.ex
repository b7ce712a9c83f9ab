defmodule Snex.Bindings.Documentation do
  @moduledoc false
  # What generated modules and functions say of themselves, in Markdown.

  alias Snex.Bindings.Plan
  alias Snex.Bindings.Plan.Function
  alias Snex.Bindings.Variant

  @typedoc "Functions of a module by their names in Python, as ExDoc links them."
  @type links() :: %{String.t() => String.t()}

  @doc """
  The documentation of a module, with those below it.
  """
  @spec of_module(Plan.t(), [Plan.t()]) :: iodata()
  def of_module(module, children) do
    kind = if module.class?, do: "class", else: "module"
    own = module.doc || "The #{kind} `#{module.python}` of Python."
    classes = for child <- children, do: "  * `#{inspect(child.module)}` - `#{child.python}`\n"

    [
      own,
      "\n\nPython's #{kind} `#{module.python}`; see `Snex.Bindings` for how its functions are called.\n",
      if(classes == [], do: [], else: ["\n## Modules\n\n", classes])
    ]
  end

  @doc """
  The documentation of a function, as one of its variants has it.
  """
  @spec of_function(Function.t(), Variant.t(), links()) :: iodata()
  def of_function(function, variant, links) do
    [
      link(function.doc || summary(function), links),
      "\n\n",
      note(function, variant),
      if(function.deprecated, do: ["\nDeprecated in Python: ", function.deprecated, "\n"], else: [])
    ]
  end

  @doc """
  Its first line.
  """
  @spec first_line(Function.t()) :: String.t()
  def first_line(function) do
    (function.doc || summary(function))
    |> String.split("\n", trim: true)
    |> Enum.find(summary(function), &(not String.starts_with?(&1, ["```", "#"])))
    |> String.slice(0, 200)
  end

  @doc """
  What can be linked in the documentation of a module.
  """
  @spec links(Plan.t()) :: links()
  def links(module) do
    for function <- module.functions, into: %{} do
      arity = function.variants |> Enum.flat_map(&Variant.arities/1) |> Enum.max()
      {function.python |> String.split(".") |> List.last(), "#{function.name}/#{arity}"}
    end
  end

  defp summary(%{kind: :constant} = function), do: "The constant `#{function.python}`."
  defp summary(%{kind: :property} = function), do: "The property `#{function.python}`."
  defp summary(%{kind: :constructor} = function), do: "Makes an object of the class `#{function.python}`."
  defp summary(function), do: "Calls `#{function.python}`."

  defp note(%{kind: :constant, value: nil}, _variant), do: []

  defp note(%{kind: :constant} = function, _variant),
    do: ["In Python: `", code("#{function.python} = #{function.value}"), "`\n"]

  defp note(%{kind: :property}, _variant), do: []

  defp note(function, %{unknown?: true}),
    do: [
      "Python doesn't report the parameters of `#{function.python}`: `args` are given by position, `kwargs` by name.\n"
    ]

  defp note(function, _variant) do
    shown = function.signatures |> Enum.map(&signature(function, &1)) |> Enum.uniq()
    ["In Python:\n\n```python\n", Enum.intersperse(shown, "\n"), "\n```\n"]
  end

  # How a function is called in Python.
  defp signature(function, %{"parameters" => parameters}) do
    positional_only = Enum.count(parameters, &(&1["kind"] == "positional_only"))

    star? =
      Enum.any?(parameters, &(&1["kind"] == "keyword")) and not Enum.any?(parameters, &(&1["kind"] == "rest"))

    shown =
      parameters
      |> Enum.with_index(1)
      |> Enum.flat_map(fn {one, index} ->
        first_keyword? =
          star? and one["kind"] == "keyword" and Enum.find(parameters, &(&1["kind"] == "keyword")) == one

        if(first_keyword?, do: ["*"], else: []) ++
          [parameter(one)] ++ if(index == positional_only, do: ["/"], else: [])
      end)

    "#{function.python}(#{Enum.join(shown, ", ")})"
  end

  defp parameter(%{"kind" => "rest", "name" => name}), do: "*" <> name
  defp parameter(%{"kind" => "any_keyword", "name" => name}), do: "**" <> name
  defp parameter(%{"default" => nil, "name" => name}), do: name
  defp parameter(%{"default" => default, "name" => name}), do: "#{name}=#{default}"

  defp link(text, links) do
    Regex.replace(~r/`((?:\w+\.)*)(\w+)\(\)`/u, text, fn all, _prefix, name ->
      case links do
        %{^name => target} -> "`#{target}`"
        _unknown -> all
      end
    end)
  end

  defp code(text), do: String.replace(text, "`", "'")
end
