defmodule Snex.Flame do
  @moduledoc false
  # Environments and objects that a function on a runner of FLAME returns. With `track_resources: true`, FLAME asks the protocol `FLAME.Trackable`
  # for each struct in the result which processes of the runner it must wait for before it ends the runner.
  #
  # Snex does not depend on FLAME, and may be compiled before it or without it. So the implementations are modules as `defimpl` makes
  # them, which needs the protocol: its name, `__impl__/1`, and the attribute by which Mix finds what is to be consolidated. Without FLAME
  # nobody calls them.

  alias Snex.Handle
  alias Snex.Remote.Keeper

  for struct <- [Snex.Env, Snex.Object] do
    defmodule Module.concat(FLAME.Trackable, struct) do
      @moduledoc false
      Module.register_attribute(__MODULE__, :__impl__, persist: true)
      @__impl__ [protocol: FLAME.Trackable, for: struct]

      @doc false
      @spec __impl__(:for | :target | :protocol) :: module()
      def __impl__(:for), do: unquote(struct)
      def __impl__(:target), do: __MODULE__
      def __impl__(:protocol), do: FLAME.Trackable

      @doc false
      @spec track(unquote(struct).t(), [pid()], node()) :: {unquote(struct).t(), [pid()]}
      defdelegate track(struct, pids, node), to: Snex.Flame
    end
  end

  @doc """
  What `FLAME.Trackable` wants: the environment or object as the calling node can hold on to it, and the process that keeps it on the runner, in
  front of `pids`. The runner still runs the process that has made it, so it is there.
  """
  @spec track(struct, [pid()], node()) :: {struct, [pid()]} when struct: Handle.t()
  def track(%{handle: handle} = struct, pids, _node) when node(handle) == node(), do: {struct, pids}

  def track(struct, pids, _node) do
    {struct, keeper} = Keeper.adopt(struct)
    {struct, [keeper | pids]}
  end
end
