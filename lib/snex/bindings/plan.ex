defmodule Snex.Bindings.Plan do
  @moduledoc false
  # The intermediate form: which modules and functions come from what Python has said of a module.

  alias Snex.Bindings.Names
  alias Snex.Bindings.Types

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

  defmodule Variant do
    @moduledoc false

    @enforce_keys [:args, :rest, :takes, :options, :opts, :result, :stream?, :unknown?]
    defstruct @enforce_keys

    @typedoc """
      * `:args` - variables with their types
      * `:rest` - the last of them if it is a list of further arguments
      * `:takes` - see `Snex.Bindings.Call`
      * `:options` - names of options with their types
      * `:opts` - `:optional`, `:required`, or `:none` where another variant has that arity
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
        "." <> below -> Module.concat([root | below |> String.split(".") |> Enum.map(&Names.module/1)])
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

  defp class(module, described, python, context) do
    %__MODULE__{
      module: Module.concat(module, Names.module(described["name"])),
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
      %{"kind" => "class", "object" => object, "name" => name} -> {:class, Names.module(name), object}
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
    variants = variants(kind, member, stream?, context.bound)

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
    if Enum.any?(variants, &(1 in arities(&1))), do: "search_", else: "search"
  end

  defp unless_searched(name, _kind, _variants), do: name

  defp kind("function"), do: :function
  defp kind("constructor"), do: :constructor
  defp kind("static"), do: :static
  defp kind("method"), do: :method
  defp kind("property"), do: :property
  defp kind("constant"), do: :constant

  @doc """
  With how many arguments a variant can be called.
  """
  @spec arities(Variant.t()) :: [non_neg_integer()]
  def arities(%{unknown?: true, args: args}), do: Enum.to_list((length(args) - 2)..(length(args) + 1))
  def arities(%{opts: :optional, args: args}), do: [length(args), length(args) + 1]
  def arities(%{opts: :required, args: args}), do: [length(args) + 1]
  def arities(%{opts: :none, args: args}), do: [length(args)]

  ## Variants

  defp variants(kind, %{"type" => type}, _stream?, bound) when kind in [:property, :constant] do
    [
      %Variant{
        args: if(kind == :property, do: [{"object", "Snex.Object.t()"}], else: []),
        rest: nil,
        takes: returns(kind, false, type, bound),
        options: [],
        opts: :optional,
        result: Types.result(type, bound),
        stream?: false,
        unknown?: false
      }
    ]
  end

  defp variants(kind, %{"signatures" => []}, stream?, bound) do
    [
      %Variant{
        args:
          object(kind) ++ [{"args", "[term()]"}, {"kwargs", "keyword() | %{optional(String.t()) => term()}"}],
        rest: nil,
        takes: returns(kind, stream?, ["any"], bound),
        options: [],
        opts: :optional,
        result: if(kind == :constructor, do: "Snex.Object.t()", else: "term()"),
        stream?: stream?,
        unknown?: true
      }
    ]
  end

  defp variants(kind, %{"signatures" => signatures}, stream?, bound) do
    variants =
      signatures
      |> Enum.group_by(&length(required(&1)))
      |> Enum.sort()
      |> Enum.map(fn {_count, alike} -> variant(kind, alike, stream?, bound) end)

    counts = Enum.map(variants, &length(&1.args))

    for variant <- variants do
      if (length(variant.args) + 1) in counts, do: %{variant | opts: :none}, else: variant
    end
  end

  # Signatures with as many arguments; the first one says how they are called.
  defp variant(kind, [first | _] = alike, stream?, bound) do
    required = required(first)
    optional = options(alike)
    names = Enum.map(optional, & &1["name"])
    rest? = List.last(required)["kind"] == "rest"
    returns = alike |> Enum.map(& &1["returns"]) |> Types.union()
    variables = Names.variables(Enum.map(object(kind), &elem(&1, 0)) ++ Enum.map(required, & &1["name"]))
    {object, variables} = Enum.split(variables, length(object(kind)))

    types =
      for {parameter, index} <- Enum.with_index(required) do
        type =
          alike
          |> Enum.map(&(&1 |> required() |> Enum.at(index) |> Map.fetch!("type")))
          |> Types.union()
          |> Types.argument()

        if parameter["kind"] == "rest", do: "[#{type}]", else: type
      end

    %Variant{
      args: Enum.map(object, &{&1, "Snex.Object.t()"}) ++ Enum.zip(variables, types),
      rest: if(rest?, do: List.last(variables)),
      takes:
        takes(first, names, rest?) ++
          returns(kind, stream?, returns, bound),
      options: for(name <- names, do: {name, option_type(name, alike)}),
      opts: if(Enum.all?(alike, &needs_options?/1), do: :required, else: :optional),
      result: if(kind == :constructor, do: "Snex.Object.t()", else: Types.result(returns, bound)),
      stream?: stream?,
      unknown?: false
    }
  end

  defp object(:method), do: [{"object", "Snex.Object.t()"}]
  defp object(_kind), do: []

  # `returns: :auto` would give a form in Elixir to what has functions here.
  defp returns(kind, stream?, type, bound) do
    if not stream? and (kind == :constructor or Types.kept?(type, bound)), do: [returns: :object], else: []
  end

  # Parameters that are arguments in Elixir too.
  defp required(%{"parameters" => parameters}) do
    Enum.filter(parameters, fn one ->
      one["kind"] == "rest" or (one["kind"] in ["positional_only", "positional"] and one["default"] == nil)
    end)
  end

  defp optional(%{"parameters" => parameters} = signature) do
    Enum.reject(parameters, &(&1["kind"] == "any_keyword")) -- required(signature)
  end

  # Of all that overloads take by name: they often differ in nothing else. What only another one takes by position has no place in a call
  # of the first.
  defp options([first | others]) do
    arguments = for parameter <- required(first), do: parameter["name"]

    further =
      for signature <- others,
          parameter <- optional(signature),
          parameter["kind"] != "positional_only" and parameter["name"] not in arguments,
          do: parameter

    Enum.uniq_by(optional(first) ++ further, & &1["name"])
  end

  defp needs_options?(signature), do: Enum.any?(optional(signature), &(&1["default"] == nil))

  defp option_type(name, alike) do
    types =
      for signature <- alike,
          parameter <- optional(signature),
          parameter["name"] == name,
          do: parameter["type"]

    types |> Types.union() |> Types.argument()
  end

  defp takes(%{"parameters" => parameters}, names, rest?) do
    positional_only =
      for %{"kind" => "positional_only", "default" => default, "name" => name} <- parameters,
          default != nil,
          do: name

    by_position =
      for %{"kind" => kind, "default" => default, "name" => name} <- parameters,
          default != nil,
          kind == "positional_only" or (rest? and kind == "positional"),
          do: name

    any? = Enum.any?(parameters, &(&1["kind"] == "any_keyword"))
    named = names -- positional_only

    if(named == [], do: [], else: [names: named]) ++
      if(by_position == [], do: [], else: [positional: by_position]) ++ if(any?, do: [any: true], else: [])
  end

  ## Collisions

  defp distinct_functions(module, :ok) do
    entries =
      for function <- module.functions,
          variant <- function.variants,
          arity <- Enum.uniq(arities(variant)),
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
