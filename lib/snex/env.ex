defmodule Snex.Env do
  @moduledoc """
  A reference to an environment: the dictionary of names in which Python code runs.

  `Snex.make_env/3` makes environments, and `Snex.pyeval/4` uses them. Environments are mutable: names that the code
  assigns are kept.

  Environments are garbage collected: when the last reference on the node that made an environment is gone, Python drops
  the dictionary soon afterwards; no further call is needed. A call that uses an environment counts as a reference until
  it returns.

  ## Between nodes

  An environment can be used from any node. The node that made it is the one where `Snex.make_env/3` was called, which
  need not be the interpreter's node. References on other nodes do not count: either the node that made the environment
  holds a reference, or `disable_gc/1` keeps the environment until `Snex.destroy_env/1`. An environment made for an
  interpreter on another node is also dropped when the two nodes lose their connection, unless `disable_gc/1` keeps it.
  """

  alias Snex.Error
  alias Snex.Handle
  alias Snex.Native
  alias Snex.Request

  @typedoc "Opaque except for `:id`, which is unique among the environments of all interpreters on one node."
  @type t() :: %__MODULE__{
          id: pos_integer(),
          interpreter: pid(),
          handle: reference()
        }

  # The handle is a resource of the node that made the environment: that node counts the references to it. For an
  # interpreter of another node it is a proxy, see `Snex.Remote`.
  @enforce_keys [:id, :interpreter, :handle]
  defstruct [:id, :interpreter, :handle]

  @streams "a stream cannot be a variable of an environment: it ends with the call that has brought it to Python. " <>
             "Pass it to Snex.pyeval/4, Snex.call/4 or Snex.stream/4"

  @typedoc false
  @type source() :: {t(), mode :: 0..2, names :: [String.t()]}

  @doc """
  Keeps the environment until `Snex.destroy_env/1`, even if nothing refers to it any longer.

  Returns the environment. Further calls are allowed as long as the environment exists, even after the last reference on
  this node was collected. Raises `ArgumentError` for an environment that another node made: only that node counts the
  references.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> ^env = Snex.Env.disable_gc(env)
      iex> Snex.destroy_env(env)
      :ok
  """
  @spec disable_gc(t()) :: t()
  def disable_gc(%__MODULE__{} = env) do
    Handle.keep(env)
    env
  end

  @doc """
  Returns the interpreter process that the environment belongs to.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.Env.interpreter(env) == interpreter
      true
  """
  @spec interpreter(t()) :: pid()
  def interpreter(%__MODULE__{interpreter: interpreter}), do: interpreter

  @doc false
  # Makes an environment of an interpreter of this node. For `Snex.Remote.run/5`: with a list of the handles in the result.
  @spec make(pid(), [source()], map(), tuple(), Request.options()) ::
          {{:ok, t()} | {:error, Error.t()}, [reference()]}
  def make(interpreter, sources, vars, encoding, options) do
    for {env, _mode, _names} <- sources, env.interpreter != interpreter do
      # A pool has chosen before it knew.
      if is_map_key(options, :slot), do: throw({:snex_elsewhere, env})

      raise ArgumentError,
            "#{inspect(env)} belongs to the interpreter #{inspect(env.interpreter)}, not to #{inspect(interpreter)}"
    end

    make = %{
      from: for({env, mode, names} <- sources, do: {env.id, mode, names}),
      vars: vars,
      callers: Process.get(:"$callers"),
      slot: options[:slot]
    }

    submit =
      Request.submission(
        interpreter,
        &Native.request_make_env/4,
        &Native.request_make_env_dirty/4,
        make,
        encoding
      )

    submit = fn reference, encoded ->
      reference |> submit.(encoded) |> Request.elsewhere(encoded, options)
    end

    case Request.call(interpreter, submit, Map.put(options, :streams, {:refused, @streams})) do
      {:ok, _nil, [], {:ok, _request, id, handle}} ->
        {{:ok, %__MODULE__{id: id, interpreter: interpreter, handle: handle}}, [handle]}

      {:error, error} ->
        {{:error, error}, []}
    end
  end

  @doc false
  # Called after a call has returned, so that until then the garbage collector cannot take what the call uses.
  @spec hold(term()) :: :ok
  def hold(_envs), do: :ok

  defimpl Inspect do
    def inspect(env, _options), do: "#Snex.Env<#{env.id}>"
  end
end
