defmodule Snex.Bindings.Variant do
  @moduledoc false
  # How a function can be called in Elixir: one variant for each number of arguments that its signatures in Python require.

  alias Snex.Bindings.Call
  alias Snex.Bindings.Names
  alias Snex.Bindings.Types

  @enforce_keys [:args, :rest, :takes, :options, :opts, :result, :stream?, :unknown?]
  defstruct @enforce_keys ++ [shorter: nil]

  @typedoc """
    * `:args` - variables with their types
    * `:rest` - the last of them if it is a list of further arguments
    * `:takes` - see `Snex.Bindings.Call`
    * `:options` - names of options with their types
    * `:opts` - `:optional`, `:required`, or `:none` where another variant has that arity
    * `:shorter` - for that other one: the variant whose options can be in the place of the last argument
  """
  @type t() :: %__MODULE__{
          args: [{variable :: String.t(), type :: String.t()}],
          rest: String.t() | nil,
          takes: Call.takes(),
          options: [{String.t(), type :: String.t()}],
          opts: :optional | :required | :none,
          result: String.t(),
          stream?: boolean(),
          unknown?: boolean(),
          shorter: t() | nil
        }

  @doc """
  The variants of a function of this kind, as Python describes it.
  """
  @spec all(atom(), map(), boolean(), Types.bound()) :: [t()]
  def all(kind, %{"type" => type}, _stream?, bound) when kind in [:property, :constant] do
    [
      %__MODULE__{
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

  def all(kind, %{"signatures" => []}, stream?, bound) do
    [
      %__MODULE__{
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

  def all(kind, %{"signatures" => signatures}, stream?, bound) do
    variants =
      signatures
      |> Enum.group_by(&length(required(&1)))
      |> Enum.sort()
      |> Enum.map(fn {_count, alike} -> variant(kind, alike, stream?, bound) end)

    by_count = Map.new(variants, &{length(&1.args), &1})

    for variant <- variants do
      count = length(variant.args)
      opts = if is_map_key(by_count, count + 1), do: :none, else: variant.opts
      %{variant | opts: opts, shorter: by_count[count - 1]}
    end
  end

  @doc """
  With how many arguments a variant can be called.
  """
  @spec arities(t()) :: [non_neg_integer()]
  def arities(%{unknown?: true, args: args}), do: Enum.to_list((length(args) - 2)..(length(args) + 1))
  def arities(%{opts: :optional, args: args}), do: [length(args), length(args) + 1]
  def arities(%{opts: :required, args: args}), do: [length(args) + 1]
  def arities(%{opts: :none, args: args}), do: [length(args)]

  @doc """
  The type of the options.
  """
  @spec options_type(t()) :: String.t()
  def options_type(variant) do
    if variant.takes[:any] || variant.unknown? do
      "keyword()"
    else
      named = for {name, type} <- variant.options, do: "{#{inspect(String.to_atom(name))}, #{type}}"
      "[#{Enum.join(named ++ ["Snex.Bindings.opt()"], " | ")}]"
    end
  end

  @doc """
  The types of the arguments, without the options behind them.
  """
  @spec types(t()) :: [String.t()]
  def types(%{shorter: nil, args: args}), do: Enum.map(args, &elem(&1, 1))

  def types(%{shorter: shorter, args: args}) do
    args |> Enum.map(&elem(&1, 1)) |> List.update_at(-1, &either(&1, options_type(shorter)))
  end

  @doc """
  The type of what it returns, which may be what the shorter one returns.
  """
  @spec result(t()) :: String.t()
  def result(%{shorter: nil, result: result}), do: result
  def result(%{shorter: shorter, result: result}), do: either(result, shorter.result)

  defp either(type, type), do: type
  defp either(type, other), do: if("term()" in [type, other], do: "term()", else: "#{type} | #{other}")

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

    %__MODULE__{
      args: Enum.map(object, &{&1, "Snex.Object.t()"}) ++ Enum.zip(variables, types),
      rest: if(rest?, do: List.last(variables)),
      takes: takes(first, names, rest?) ++ returns(kind, stream?, returns, bound),
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

    if(named == [], do: [], else: [names: atoms(named)]) ++
      if(by_position == [], do: [], else: [positional: atoms(by_position)]) ++
      if(any?, do: [any: true], else: [])
  end

  # Source code that has them makes these atoms anyway.
  defp atoms(names), do: Enum.map(names, &String.to_atom/1)
end
