defmodule Snex.Invoke do
  @moduledoc false
  # Calls of Python functions by name, and attributes: what `Snex.call/4`, `Snex.get/3` and `Snex.Object` have in common.

  alias Snex.Arguments
  alias Snex.CallOptions
  alias Snex.Env
  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Object
  alias Snex.Remote
  alias Snex.Request
  alias Snex.Telemetry

  @typedoc "Where a path begins: in the environment, in a module, or at an object."
  @type root() :: nil | String.t() | Object.t()

  @typedoc "A dotted path, `\"math.sqrt\"`, or one in a module, `{\"os.path\", \"join\"}`."
  @type path() :: String.t() | {String.t(), String.t()}

  @doc """
  Calls the function that `path` leads to from `root`. `opts` are those that `Snex.CallOptions.call!/1` has checked.
  """
  @spec call(Env.t() | Interpreter.server(), root(), path(), [term()], map()) ::
          {:ok, term()} | {:error, Error.t()}
  def call(where, root, path, args, opts), do: run(:call, where, root, path, args, opts)

  @doc """
  Returns the attribute that `path` leads to from `root`.
  """
  @spec get(Env.t() | Interpreter.server(), root(), path(), map()) :: {:ok, term()} | {:error, Error.t()}
  def get(where, root, path, opts), do: run(:get, where, root, path, nil, opts)

  defp run(function, where, root, path, args, opts) do
    {interpreter, env_id} = target(where)
    {root, path} = split(root, path)

    request = Request.invoke(env_id, root, path, args, Map.get(opts, :kwargs, %{}), opts)

    options = CallOptions.request(opts)

    Telemetry.call(function, where, fn ->
      result = Remote.run(interpreter, Request, :run, [request, opts.encoding_opts], options)
      Env.hold({where, request})
      Error.in_call(result, where, opts.timeout)
    end)
  end

  @doc """
  Returns a stream of what the function that `path` leads to returns, or, with `nil` for arguments, of what is there. `opts` are
  those that `Snex.CallOptions.stream!/2` has checked; `explain` gets an error before it is raised.
  """
  @spec stream(Env.t() | Interpreter.server(), root(), path(), [term()] | nil, map(), (Error.t() -> Error.t())) ::
          Enumerable.t()
  def stream(where, root, path, args, opts, explain) do
    {_interpreter, env_id} = target(where)
    {root, path} = split(root, path)
    kwargs = Map.get(opts, :kwargs, %{})
    Snex.Stream.new(where, fn -> Request.invoke(env_id, root, path, args, kwargs, opts) end, opts, explain)
  end

  @doc """
  The interpreter, and the number of the environment, if that is one.
  """
  @spec target(Env.t() | Interpreter.server()) :: {Interpreter.server(), pos_integer() | nil}
  def target(%Env{} = env), do: {env.interpreter, env.id}
  def target(interpreter), do: {interpreter, nil}

  @doc """
  Where a path begins, and the path from there, as `Snex.Request.invoke/6` takes them.
  """
  @spec split(root(), path()) :: {root(), String.t()}
  def split(nil, {module, path}), do: {module, path}
  def split(root, path), do: {root, path}

  @doc """
  The path, checked.
  """
  @spec path!(term()) :: path()
  def path!(path) do
    if name?(path) or (match?({_module, _path}, path) and name?(elem(path, 0)) and name?(elem(path, 1))) do
      path
    else
      raise ArgumentError,
            "expected a name, names joined by dots, or {module, name}, as strings, such as \"math.sqrt\", " <>
              "got: #{Arguments.show(path)}"
    end
  end

  # Text that neither begins nor ends with a dot, and has no two in a row.
  defp name?(<<first::utf8, rest::binary>>) when first != ?., do: rest_of_name?(rest)
  defp name?(_other), do: false

  defp rest_of_name?(<<?., rest::binary>>), do: name?(rest)
  defp rest_of_name?(<<_::utf8, rest::binary>>), do: rest_of_name?(rest)
  defp rest_of_name?(rest), do: rest == ""

  @doc """
  The path from an object, checked.
  """
  @spec name!(term()) :: String.t()
  def name!(name) do
    if name?(name),
      do: name,
      else:
        raise(
          ArgumentError,
          "expected a name, or names joined by dots, as a string, such as \"a.sum\", got: #{Arguments.show(name)}"
        )
  end

  @doc """
  The arguments, checked.
  """
  @spec args!(term()) :: [term()]
  def args!(args) do
    if is_list(args) and List.improper?(args) == false,
      do: args,
      else: raise(ArgumentError, "expected a list of arguments, got: #{Arguments.show(args)}")
  end
end
