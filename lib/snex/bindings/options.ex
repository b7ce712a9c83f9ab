defmodule Snex.Bindings.Options do
  @moduledoc false
  # The options of `use Snex.Bindings`.

  alias Snex.Options

  @names quote(do: [String.t()])

  @table [
    module: [type: :string, doc: "the name of the Python module, such as `\"statistics\"`"],
    interpreter: [
      type: &__MODULE__.interpreter/1,
      spec: quote(do: module()),
      doc: "a module with `use Snex.Interpreter`, whose Python lists what is in the module"
    ],
    server: [
      type: &__MODULE__.server/1,
      spec: quote(do: term()),
      doc: """
      the name of the interpreter or pool that the functions call unless they are given one. The default is the module
      of `:interpreter`, which is the name of an interpreter that is defined with `name: __MODULE__`
      """
    ],
    only: [
      type: &__MODULE__.names/1,
      default: nil,
      spec: @names,
      doc: """
      names to include: of functions, classes and constants, of members of a class (`"DataFrame.head"`), or of members
      of a submodule (`"linalg.norm"`). The default is everything that the module exports
      """
    ],
    except: [type: &__MODULE__.names/1, default: [], spec: @names, doc: "names to leave out"],
    submodules: [
      type: &__MODULE__.submodules/1,
      default: false,
      spec: quote(do: boolean() | [String.t()]),
      doc:
        "names of submodules that become modules below this one, or `true` for all public submodules that can be imported"
    ],
    stream: [
      type: &__MODULE__.names/1,
      default: [],
      spec: @names,
      doc:
        "names of functions and methods that return a stream of the items in their result; see `Snex.stream/4`"
    ]
  ]

  @doc "The table."
  @spec table() :: Options.table()
  def table, do: @table

  @doc """
  The options as a map, with defaults.
  """
  @spec check!(term()) :: map()
  def check!(opts) do
    opts = Options.check!(opts, @table)

    for name <- [:module, :interpreter], not is_map_key(opts, name) do
      raise ArgumentError, "option #{inspect(name)} is missing"
    end

    Map.put_new(opts, :server, opts.interpreter)
  end

  @doc false
  @spec names(term()) :: {:ok, [String.t()]} | {:error, String.t()}
  def names(value) do
    if is_list(value) and Enum.all?(value, &is_binary/1),
      do: {:ok, value},
      else: Options.refuse(value, "a list of names, as strings")
  end

  @doc false
  @spec submodules(term()) :: {:ok, boolean() | [String.t()]} | {:error, String.t()}
  def submodules(value) when is_boolean(value), do: {:ok, value}
  def submodules(value), do: names(value)

  @doc false
  @spec interpreter(term()) :: {:ok, module()} | {:error, String.t()}
  def interpreter(value) do
    if is_atom(value) and value not in [nil, true, false],
      do: {:ok, value},
      else: Options.refuse(value, "a module with `use Snex.Interpreter`")
  end

  @doc false
  @spec server(term()) :: {:ok, term()} | {:error, String.t()}
  def server(value) do
    case value do
      name when is_atom(name) and name not in [nil, true, false] ->
        {:ok, name}

      {name, node} when is_atom(name) and is_atom(node) ->
        {:ok, value}

      {:global, _name} ->
        {:ok, value}

      {:via, module, _name} when is_atom(module) ->
        {:ok, value}

      _other ->
        Options.refuse(value, "a name: an atom, {name, node}, {:global, name} or {:via, module, name}")
    end
  end
end
