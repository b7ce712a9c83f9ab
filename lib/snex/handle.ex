defmodule Snex.Handle do
  @moduledoc false
  # What structs that stand for something in Python have in common: an `:interpreter`, an `:id`, and a `:handle`, which is a resource of
  # the node that counts the references to it. On the interpreter's node that is the handle itself, on another one a proxy;
  # see `Snex.Remote`.

  alias Snex.Env
  alias Snex.Native
  alias Snex.Object
  alias Snex.Remote
  alias Snex.Remote.Tracker
  alias Snex.Request

  # For another node to answer, in ms.
  @timeout 5_000

  @type t() :: %{
          :__struct__ => module(),
          :id => pos_integer(),
          :interpreter => pid(),
          :handle => reference(),
          optional(atom()) => term()
        }

  @doc """
  Has Python keep it until it is released or destroyed. Raises `ArgumentError` on a node that does not count its references.
  """
  @spec keep(t()) :: :ok
  def keep(%{handle: handle} = struct) do
    if node(handle) != node() do
      raise ArgumentError, "#{only_here(struct)}: #{inspect(struct)} belongs to #{node(handle)}"
    end

    run(struct, :keep_there, [kind(struct), struct.id])
  end

  @doc """
  Gives back what this handle has of it, and no longer keeps it. From any node, and more than once.
  """
  @spec release(t()) :: :ok
  def release(%{handle: handle} = struct) do
    kind = kind(struct)

    if node(struct.interpreter) == node() do
      run(struct, :release_there, [handle, kind, struct.id])
    else
      # That of a proxy, so that nobody reaches anything through it from now on. The proxy itself is dropped with it.
      run(struct, :release_there, [Native.handle_drop_message(handle) || handle, kind, struct.id])
      Native.handle_release(handle, struct.interpreter, kind, struct.id)
    end
  end

  @doc """
  Drops an environment, however many handles there are. From any node.
  """
  @spec destroy(Env.t()) :: :ok
  def destroy(%Env{} = env), do: run(env, :destroy_there, [env.id])

  # What cannot be reached is gone, or will be when its node finds this one gone.
  defp run(struct, function, args) do
    options = %{deadline: Request.deadline(@timeout), on_timeout: :leave, output: nil}
    _ = Remote.run(struct.interpreter, __MODULE__, function, args, options)
    :ok
  end

  @doc false
  @spec keep_there(pid(), atom(), pos_integer(), Request.options()) :: {:ok, []}
  def keep_there(interpreter, kind, id, _options), do: {Native.handle_keep(interpreter, kind, id), []}

  @doc false
  @spec release_there(pid(), reference() | tuple(), atom(), pos_integer(), Request.options()) :: {:ok, []}
  def release_there(interpreter, {:snex_handle_dropped, holder, key}, kind, id, options),
    do: release_there(interpreter, Tracker.lookup(holder, key) || make_ref(), kind, id, options)

  def release_there(interpreter, handle, kind, id, _options),
    do: {Native.handle_release(handle, interpreter, kind, id), []}

  @doc false
  @spec destroy_there(pid(), pos_integer(), Request.options()) :: {:ok, []}
  def destroy_there(interpreter, id, _options), do: {Native.handle_destroy(interpreter, id), []}

  defp kind(%Env{}), do: :environment
  defp kind(%Object{}), do: :object

  defp only_here(%Env{}), do: "an environment can only be kept by the node that made it"
  defp only_here(%Object{}), do: "an object can only be kept by the node that has received it"
end
