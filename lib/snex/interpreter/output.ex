defmodule Snex.Interpreter.Output do
  @moduledoc false
  # The process that prints what belongs to no call: what C code and child processes print, and Python itself outside of any
  # call. It also hands on what Python logs.
  #
  # Chunks come one at a time for each stream: the next is read from Python's pipe only when this one is acknowledged, so a
  # slow device makes Python wait, and nothing piles up. The same goes for log events.
  #
  # Linked to the interpreter process, and gone with it; monitors it as well, for a link does not tell of an end that is
  # `:normal`.

  alias Snex.Log
  alias Snex.Native
  alias Snex.Output

  @doc """
  Starts the process, linked to the calling interpreter process, whose group leader it inherits. `atoms` says whether terms
  from Python may create atoms.
  """
  @spec start_link(pid(), Output.destination(), :create | :existing) :: pid()
  def start_link(interpreter, destination, atoms) do
    decoding = if atoms == :existing, do: [:safe], else: []

    spawn_link(fn ->
      Process.set_label({__MODULE__, interpreter})
      Process.monitor(interpreter)
      loop(interpreter, destination, decoding, %{})
    end)
  end

  defp loop(interpreter, destination, decoding, cut) do
    receive do
      {:snex_output, stream, bytes} ->
        {:ok, cut} = Output.print(destination, interpreter, stream, bytes, cut, :infinity)
        Native.output_read(interpreter, stream)
        loop(interpreter, destination, decoding, cut)

      {:snex_log, body} ->
        Log.log(interpreter, body, decoding)
        Native.log_read(interpreter)
        loop(interpreter, destination, decoding, cut)

      {:DOWN, _reference, :process, ^interpreter, _reason} ->
        :ok
    end
  end
end
