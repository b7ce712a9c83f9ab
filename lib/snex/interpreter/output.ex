defmodule Snex.Interpreter.Output do
  @moduledoc false
  # The process that prints what belongs to no call: what C code and child processes print, and Python itself outside of any
  # call.
  #
  # Chunks come one at a time for each stream: the next is read from Python's pipe only when this one is acknowledged, so a
  # slow device makes Python wait, and nothing piles up. Linked to the interpreter process, and gone with it.

  alias Snex.Native
  alias Snex.Output

  @doc """
  Starts the process, linked to the calling interpreter process, whose group leader it inherits.
  """
  @spec start_link(pid(), Output.destination()) :: pid()
  def start_link(interpreter, destination) do
    spawn_link(fn ->
      Process.set_label({__MODULE__, interpreter})
      loop(interpreter, destination, %{})
    end)
  end

  defp loop(interpreter, destination, cut) do
    receive do
      {:snex_output, stream, bytes} ->
        cut = Output.print(destination, interpreter, stream, bytes, cut)
        Native.output_read(interpreter, stream)
        loop(interpreter, destination, cut)
    end
  end
end
