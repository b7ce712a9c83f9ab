defmodule Snex.Env do
  @moduledoc """
  A reference to an environment: the dictionary of names that Python code runs in.

  Made by `Snex.make_env/3`, used by `Snex.pyeval/4`. Environments are mutable: names that the code assigns stay.

  They are garbage collected: when the last reference on the node that made an environment is gone, Python drops the
  dictionary, soon and without any call in between. References on other nodes do not count; see `disable_gc/1`.
  """

  alias Snex.Native

  @typedoc "Opaque but for `:id`, which is unique within the interpreter."
  @type t() :: %__MODULE__{id: pos_integer(), interpreter: pid(), handle: reference()}

  @enforce_keys [:id, :interpreter, :handle]
  defstruct [:id, :interpreter, :handle]

  @doc """
  Keeps the environment alive until `Snex.destroy_env/1`, whoever refers to it. Returns it.

  May be called again. Raises `ArgumentError` for an environment of another node: only the node that made it can
  count its references.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> ^env = Snex.Env.disable_gc(env)
      iex> Snex.destroy_env(env)
      :ok
  """
  @spec disable_gc(t()) :: t()
  def disable_gc(%__MODULE__{interpreter: interpreter} = env) do
    if node(interpreter) != node() do
      raise ArgumentError,
            "an environment can only be kept by the node that made it: #{inspect(env)} is of #{node(interpreter)}"
    end

    Native.environment_keep(env.handle)
    env
  end

  @doc """
  The interpreter process that the environment belongs to.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.Env.interpreter(env) == interpreter
      true
  """
  @spec interpreter(t()) :: pid()
  def interpreter(%__MODULE__{interpreter: interpreter}), do: interpreter

  defimpl Inspect do
    def inspect(env, _options), do: "#Snex.Env<#{env.id}>"
  end
end
