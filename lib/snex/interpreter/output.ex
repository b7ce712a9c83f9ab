defmodule Snex.Interpreter.Output do
  @moduledoc false
  # The process that prints what belongs to no call: what C code and child processes print, and Python itself outside of any
  # call. It also hands on what Python logs.
  #
  # Chunks come one at a time for each stream: the next is read from Python's pipe only when this one is acknowledged, so a
  # slow device makes Python wait, and nothing piles up. The same goes for log events.
  #
  # Linked to the interpreter process, and gone with it; monitors it as well, for a link does not tell of an end that is
  # `:normal`. A `GenServer` for the same reason as `Snex.Interpreter.Calls`.

  use GenServer

  alias Snex.Log
  alias Snex.Native
  alias Snex.Output

  @doc """
  Starts the process, linked to the calling interpreter process, whose group leader it inherits. `atoms` says whether terms
  from Python may create atoms.
  """
  @spec start_link(pid(), Output.destination(), :create | :existing) :: pid()
  def start_link(interpreter, destination, atoms) do
    {:ok, pid} = GenServer.start_link(__MODULE__, {interpreter, destination, atoms})
    pid
  end

  @impl GenServer
  def init({interpreter, destination, atoms}) do
    Process.set_label({__MODULE__, interpreter})
    Process.monitor(interpreter)

    # Also when it crashes, the last line is logged that has no end. A process that waits for a device has to go at once.
    Process.flag(:trap_exit, not Enum.any?(Map.values(destination), &(&1 in [:group_leader, :inherit])))
    decoding = if atoms == :existing, do: [:safe], else: []
    {:ok, %{interpreter: interpreter, destination: destination, decoding: decoding, cut: %{}}}
  end

  @impl GenServer
  def handle_info({:snex_output, stream, bytes}, state) do
    {:ok, cut} = Output.print(state.destination, state.interpreter, stream, bytes, state.cut, :infinity)
    Native.output_read(state.interpreter, stream)
    {:noreply, %{state | cut: cut}}
  end

  def handle_info({:snex_log, body}, state) do
    Log.log(state.interpreter, body, state.decoding)
    Native.log_read(state.interpreter)
    {:noreply, state}
  end

  def handle_info({:DOWN, _monitor, :process, interpreter, _reason}, %{interpreter: interpreter} = state),
    do: {:stop, :normal, state}

  def handle_info(_message, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state), do: Output.flush(state.destination, state.interpreter, state.cut)
end
