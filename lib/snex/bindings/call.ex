defmodule Snex.Bindings.Call do
  @moduledoc false
  # What generated functions call, one line each. `takes` says what a function takes beyond its arguments:
  #
  #   * `:names` - parameters that are given by name, among the options
  #   * `:any` - `true` for a function that takes any names
  #   * `:positional` - parameters with defaults that Python takes only by their position; in order, behind the arguments
  #   * `:rest` - arguments behind those
  #   * `:returns` - the default of that option
  #   * `:shorter` - of an overload: what the one with an argument less takes. The last argument may be its options instead

  alias Snex.Arguments
  alias Snex.CallOptions
  alias Snex.Error
  alias Snex.Invoke
  alias Snex.Object

  @type takes() :: [
          names: [atom()],
          any: boolean(),
          positional: [atom()],
          rest: [term()],
          returns: atom(),
          shorter: takes()
        ]

  @call Keyword.keys(CallOptions.call())
  @get Keyword.keys(CallOptions.get())
  @stream Keyword.keys(CallOptions.stream())

  @doc "Calls a function."
  @spec function(term(), Snex.path(), [term()], keyword(), takes()) :: {:ok, term()} | {:error, Error.t()}
  def function(server, path, args, [], names: _names), do: Snex.call(server, path, args)
  def function(server, path, args, [], []), do: Snex.call(server, path, args)

  def function(server, path, args, opts, takes) do
    {args, opts} = split!(args, opts, takes, @call)
    {server, opts} = Keyword.pop(opts, :server, server)
    Snex.call(server, path, args, opts)
  end

  @doc "As `function/5`, and raises the error."
  @spec function!(term(), Snex.path(), [term()], keyword(), takes()) :: term()
  def function!(server, path, args, opts, takes), do: Error.unwrap!(function(server, path, args, opts, takes))

  @doc "Calls a function whose parameters nobody knows."
  @spec unknown(term(), Snex.path(), [term()], keyword() | map(), keyword(), takes()) ::
          {:ok, term()} | {:error, Error.t()}
  def unknown(server, path, args, kwargs, opts, takes) do
    function(server, path, args, [{:kwargs, kwargs} | opts], takes)
  end

  @doc "As `unknown/6`, and raises the error."
  @spec unknown!(term(), Snex.path(), [term()], keyword() | map(), keyword(), takes()) :: term()
  def unknown!(server, path, args, kwargs, opts, takes),
    do: Error.unwrap!(unknown(server, path, args, kwargs, opts, takes))

  @doc "Returns a constant."
  @spec constant(term(), Snex.path(), keyword()) :: {:ok, term()} | {:error, Error.t()}
  def constant(server, path, opts) do
    {[], opts} = split!([], opts, [], @get)
    {server, opts} = Keyword.pop(opts, :server, server)
    Snex.get(server, path, opts)
  end

  @doc "As `constant/3`, and raises the error."
  @spec constant!(term(), Snex.path(), keyword()) :: term()
  def constant!(server, path, opts), do: Error.unwrap!(constant(server, path, opts))

  @doc "Calls a method. It runs where the object is, whatever `server:` says."
  @spec method(Object.t(), String.t(), [term()], keyword(), takes()) :: {:ok, term()} | {:error, Error.t()}
  def method(object, name, args, opts, takes) do
    {args, opts} = split!(args, opts, takes, @call)
    Object.call(object!(object, name), name, args, Keyword.delete(opts, :server))
  end

  @doc "As `method/5`, and raises the error."
  @spec method!(Object.t(), String.t(), [term()], keyword(), takes()) :: term()
  def method!(object, name, args, opts, takes), do: Error.unwrap!(method(object, name, args, opts, takes))

  @doc "Calls a method whose parameters nobody knows."
  @spec unknown_method(Object.t(), String.t(), [term()], keyword() | map(), keyword(), takes()) ::
          {:ok, term()} | {:error, Error.t()}
  def unknown_method(object, name, args, kwargs, opts, takes),
    do: method(object, name, args, [{:kwargs, kwargs} | opts], takes)

  @doc "As `unknown_method/6`, and raises the error."
  @spec unknown_method!(Object.t(), String.t(), [term()], keyword() | map(), keyword(), takes()) :: term()
  def unknown_method!(object, name, args, kwargs, opts, takes),
    do: Error.unwrap!(unknown_method(object, name, args, kwargs, opts, takes))

  @doc "Returns a property."
  @spec property(Object.t(), String.t(), keyword(), takes()) :: {:ok, term()} | {:error, Error.t()}
  def property(object, name, opts, takes) do
    {[], opts} = split!([], opts, takes, @get)
    Object.get(object!(object, name), name, Keyword.delete(opts, :server))
  end

  @doc "As `property/4`, and raises the error."
  @spec property!(Object.t(), String.t(), keyword(), takes()) :: term()
  def property!(object, name, opts, takes), do: Error.unwrap!(property(object, name, opts, takes))

  @doc "Returns a stream of what a function returns."
  @spec stream(term(), Snex.path(), [term()], keyword(), takes()) :: Enumerable.t()
  def stream(server, path, args, opts, takes) do
    {args, opts} = split!(args, opts, takes, [:kwargs | @stream])
    {server, opts} = Keyword.pop(opts, :server, server)
    {kwargs, opts} = Keyword.pop(opts, :kwargs, %{})
    Snex.stream(server, {path, args, kwargs}, opts)
  end

  @doc "Returns a stream of what a method returns."
  @spec stream_method(Object.t(), String.t(), [term()], keyword(), takes()) :: Enumerable.t()
  def stream_method(object, name, args, opts, takes) do
    {args, opts} = split!(args, opts, takes, [:kwargs | @stream])
    {kwargs, opts} = opts |> Keyword.delete(:server) |> Keyword.pop(:kwargs, %{})
    object = object!(object, name)
    opts = Map.put(CallOptions.stream!(opts, :auto), :kwargs, CallOptions.kwargs!(kwargs))
    Invoke.stream(object.interpreter, object, Invoke.name!(name), Invoke.args!(args), opts, & &1)
  end

  defp object!(%Object{} = object, _name), do: object

  defp object!(other, name) do
    raise ArgumentError,
          "expected a Snex.Object with `#{name}`, got: #{Arguments.show(other)}"
  end

  # Returns all arguments, and the options of `Snex.call/4` with the named arguments among them.
  defp split!(args, opts, takes, known) do
    if not Keyword.keyword?(opts),
      do: raise(ArgumentError, "expected a keyword list of options, got: #{Arguments.show(opts)}")

    {args, opts, takes} = overload(args, opts, takes)
    {own, opts} = Keyword.pop(opts, :snex, [])
    {explicit, opts} = if :kwargs in names(takes), do: {[], opts}, else: Keyword.pop(opts, :kwargs, [])
    {args, opts} = positional(args, opts, takes)
    {named, opts} = Enum.split_with(opts, fn {name, _value} -> named?(name, takes, known) end)
    refuse_unknown!(opts, takes, known)
    opts = Keyword.merge(Keyword.take(takes, [:returns]), opts ++ own)
    kwargs = Map.merge(CallOptions.kwargs!(explicit), CallOptions.kwargs!(named))
    {args, if(kwargs == %{}, do: opts, else: Keyword.put(opts, :kwargs, kwargs))}
  end

  # As a value, a keyword list would be a list of tuples in Python, which few functions take.
  defp overload(args, [], takes) do
    with {:ok, shorter} <- Keyword.fetch(takes, :shorter),
         {args, [{_name, _value} | _] = opts} <- last(args, takes),
         true <- Keyword.keyword?(opts) do
      {args, opts, shorter}
    else
      _ -> {args, [], takes}
    end
  end

  defp overload(args, opts, takes), do: {args, opts, takes}

  defp last(args, takes) do
    case Keyword.fetch(takes, :rest) do
      {:ok, rest} -> {args, rest}
      :error -> {Enum.drop(args, -1), List.last(args)}
    end
  end

  defp names(takes), do: Keyword.get(takes, :names, [])

  defp named?(name, takes, known),
    do: name in names(takes) or (takes[:any] == true and name != :server and name not in known)

  # Those in front of one that is given have to be given as well.
  defp positional(args, opts, takes) do
    rest = takes |> Keyword.get(:rest, []) |> Invoke.args!()
    names = Keyword.get(takes, :positional, [])
    by_position = Enum.filter(names, &(rest != [] or &1 not in names(takes)))
    given = Enum.take_while(by_position, &Keyword.has_key?(opts, &1))
    later = Enum.find(by_position -- given, &Keyword.has_key?(opts, &1))

    if later != nil or (rest != [] and given != by_position) do
      missing = hd(by_position -- given)
      what = if later, do: "option #{inspect(later)}", else: "further arguments"

      raise ArgumentError,
            "#{what} can't be given without option #{inspect(missing)}: Python takes them by position"
    end

    {args ++ Enum.map(given, &Keyword.fetch!(opts, &1)) ++ rest, Keyword.drop(opts, given)}
  end

  defp refuse_unknown!(opts, takes, known) do
    known = [:server | known]

    with {name, _value} <- Enum.find(opts, fn {name, _value} -> name not in known end) do
      parameters = names(takes) ++ Keyword.get(takes, :positional, [])

      raise ArgumentError,
            "unknown option #{inspect(name)}#{Snex.Options.suggestion(name, Enum.uniq(parameters ++ known))}"
    end
  end
end
