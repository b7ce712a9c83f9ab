defmodule Bench.Bridge do
  @moduledoc """
  The plain bridge: what anyone would write in an afternoon. A GenServer that owns a port; see `bridge.py`.
  """

  use GenServer

  @program Path.expand("bridge.py", __DIR__)

  def start_link(python), do: GenServer.start_link(__MODULE__, python)

  @doc "Runs code that sets `result` to an integer, and returns that."
  def eval(bridge, code), do: GenServer.call(bridge, {:eval, code}, :infinity)

  @impl GenServer
  def init(python) do
    port = Port.open({:spawn_executable, python}, [:binary, :exit_status, packet: 4, args: [@program]])
    {:ok, %{port: port, next: 0, callers: %{}}}
  end

  @impl GenServer
  def handle_call({:eval, code}, from, %{next: next} = state) do
    Port.command(state.port, [<<next::32>>, code])
    {:noreply, %{state | next: rem(next + 1, 2 ** 32), callers: Map.put(state.callers, next, from)}}
  end

  @impl GenServer
  def handle_info({port, {:data, <<number::32, etf::binary>>}}, %{port: port} = state) do
    {from, callers} = Map.pop!(state.callers, number)
    GenServer.reply(from, :erlang.binary_to_term(etf))
    {:noreply, %{state | callers: callers}}
  end
end
