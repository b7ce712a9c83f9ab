defmodule Snex.Bindings.Plan do
  @moduledoc false
  # The intermediate form: which modules and functions come from what Python has said of a module.

  alias Snex.Bindings.Names
  alias Snex.Bindings.Variant

  defmodule Function do
    @moduledoc false
    # One function for each entry of `variants`: they differ in how many arguments they have.

    @enforce_keys [:name, :kind, :python, :path, :doc, :deprecated, :signatures, :variants, :value]
    defstruct @enforce_keys

    @typedoc """
      * `:kind` - `:function`, `:constructor`, `:static`, `:method`, `:property` or `:constant`
      * `:python` - the full name in Python
      * `:path` - what `Snex.call/4` takes; for methods and properties the name
      * `:signatures` - as Python has them, for the documentation
      * `:value` - a constant's, in Python's syntax
    """
    @type t() :: %__MODULE__{}
  end

  @enforce_keys [:module, :python, :doc, :functions, :class?, :deprecated]
  defstruct @enforce_keys

  @typedoc "A module to be generated; the first one of several is that of the user."
  @type t() :: %__MODULE__{}

  @doc """
  The modules that come from an answer of `Snex.Bindings.Introspection`, or which two things would have the same name.
  """
  @spec new(module(), map(), [String.t()]) :: {:ok, [t()]} | {:error, String.t()}
  def new(module, answer, streams) do
    [main | _] = answer["modules"]

    context = %{
      bound: bound(answer["modules"]),
      streams: MapSet.new(streams),
      main: main["name"]
    }

    modules = Enum.flat_map(answer["modules"], &module(module, &1, context))

    with :ok <- streams(modules, context),
         :ok <- distinct(modules, &inspect(&1.module), & &1.python, "modules"),
         :ok <- Enum.reduce_while(modules, :ok, &distinct_functions/2) do
      {:ok, modules}
    end
  end

  # Each of them has to be something that can be called.
  defp streams(modules, context) do
    names =
      for module <- modules,
          function <- module.functions,
          function.kind not in [:property, :constant],
          do: below(function.python, context)

    case MapSet.to_list(MapSet.difference(context.streams, MapSet.new(names))) do
      [] ->
        :ok

      [name | _] ->
        {:error,
         "option :stream: there is no function #{inspect(name)} in #{context.main}, or it is left out"}
    end
  end

  defp below(python, context), do: String.replace_prefix(python, context.main <> ".", "")

  defp bound(modules) do
    for %{"members" => members} <- modules,
        %{"kind" => "class", "type" => type} <- members,
        into: MapSet.new(),
        do: type
  end

  defp module(root, described, context) do
    python = described["name"]

    module =
      case String.replace_prefix(python, context.main, "") do
        "" -> root
        "." <> below -> Module.concat([root | parts(below)])
      end

    {classes, others} = described["members"] |> once() |> Enum.split_with(&(&1["kind"] == "class"))

    own = %__MODULE__{
      module: module,
      python: python,
      doc: described["doc"],
      functions: functions(others, python, context, []),
      class?: false,
      deprecated: nil
    }

    [own | Enum.map(classes, &class(module, &1, python, context))]
  end

  # A class may be in another one: `Outer.Inner`.
  defp parts(path), do: path |> String.split(".") |> Enum.map(&Names.module/1)

  defp class(module, described, python, context) do
    %__MODULE__{
      module: Module.concat([module | parts(described["name"])]),
      python: "#{python}.#{described["name"]}",
      doc: described["doc"],
      functions: functions(described["members"], python, context, ["new"]),
      class?: true,
      deprecated: described["deprecated"]
    }
  end

  # Of two names that Elixir has one form for and that mean the same object, such as `bool` and `bool_`, one is enough.
  defp once(members) do
    Enum.uniq_by(members, fn
      %{"kind" => "class", "object" => object, "name" => name} -> {:class, parts(name), object}
      %{"object" => object, "name" => name} -> {:function, Names.function(name), object}
      %{"name" => name} -> {:name, name}
    end)
  end

  defp functions(members, python, context, taken) do
    members
    |> Enum.map(&function(&1, python, context, taken))
    |> Enum.sort_by(&{&1.kind != :constructor, &1.name})
  end

  defp function(member, module, context, taken) do
    kind = kind(member["kind"])
    path = member["path"]

    name =
      case Names.function(member["name"]) do
        name when kind != :constructor and taken != [] -> if(name in taken, do: name <> "_", else: name)
        name -> name
      end

    stream? = MapSet.member?(context.streams, below("#{module}.#{path}", context))
    variants = Variant.all(kind, member, stream?, context.bound)

    %Function{
      name: unless_searched(name, kind, variants),
      kind: kind,
      python: "#{module}.#{path}",
      path: if(kind in [:method, :property], do: member["name"], else: {module, path}),
      doc: member["doc"],
      deprecated: member["deprecated"],
      signatures: member["signatures"] || [],
      value: member["value"],
      variants: variants
    }
  end

  # The module has a `search/1` of its own.
  defp unless_searched("search", :function, variants) do
    if Enum.any?(variants, &(1 in Variant.arities(&1))), do: "search_", else: "search"
  end

  defp unless_searched(name, _kind, _variants), do: name

  defp kind("function"), do: :function
  defp kind("constructor"), do: :constructor
  defp kind("static"), do: :static
  defp kind("method"), do: :method
  defp kind("property"), do: :property
  defp kind("constant"), do: :constant

  ## Collisions

  defp distinct_functions(module, :ok) do
    entries =
      for function <- module.functions,
          variant <- function.variants,
          arity <- Enum.uniq(Variant.arities(variant)),
          do: {function, arity}

    entries = Enum.uniq(entries)

    case distinct(
           entries,
           fn {function, arity} -> "#{inspect(module.module)}.#{function.name}/#{arity}" end,
           &elem(&1, 0).python,
           "functions"
         ) do
      :ok -> {:cont, :ok}
      error -> {:halt, error}
    end
  end

  defp distinct(things, key, python, what) do
    things
    |> Enum.group_by(key)
    |> Enum.sort()
    |> Enum.find_value(:ok, fn {name, same} ->
      case same |> Enum.map(python) |> Enum.uniq() do
        [_one] ->
          nil

        [one, other | _] ->
          {:error,
           "the #{what} of #{one} and #{other} would both be #{name}. Leave one of them out with except:"}
      end
    end)
  end
end
