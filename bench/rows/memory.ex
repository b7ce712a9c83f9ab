defmodule Bench.Memory do
  @moduledoc """
  How much memory a large binary takes on its way, and for how long the VM's schedulers are held.
  """

  alias Bench.Row

  def rows, do: [memory: &memory/1]

  defp memory(context) do
    size = if context.quick, do: 32, else: 256
    {:ok, interpreter} = Snex.Interpreter.start_link(python: context.python)
    os_pid = Snex.Interpreter.os_pid(interpreter)
    {:ok, nil} = Snex.pyeval(interpreter, "x = None")

    peaks =
      for _ <- 1..max(div(context.runs, 2), 1) do
        for process <- Process.list(), do: :erlang.garbage_collect(process)
        before = resident(System.pid()) + resident(os_pid)
        for pid <- [System.pid(), os_pid], do: File.write!("/proc/#{pid}/clear_refs", "5")

        Task.await(
          Task.async(fn ->
            value = Snex.Serde.binary(:binary.copy(<<1>>, size * 1024 * 1024))
            {:ok, n} = Snex.pyeval(interpreter, "return len(x)", %{"x" => value}, timeout: 60_000)
            ^n = size * 1024 * 1024
          end),
          :infinity
        )

        peak(System.pid()) + peak(os_pid) - before
      end

    Snex.Interpreter.stop(interpreter)

    %Row{
      name: "memory",
      what: "peak memory of both sides while #{size} MiB travel; floor: the binary on each side",
      floor: [2 * size * 1024 * 1024],
      value: peaks,
      unit: :bytes,
      goal: :at_most,
      target: 1.3
    }
  end

  defp resident(pid), do: status(pid, "VmRSS")
  defp peak(pid), do: status(pid, "VmHWM")

  defp status(pid, field) do
    [_, kibibytes] = Regex.run(~r/^#{field}:\s+(\d+) kB/m, File.read!("/proc/#{pid}/status"))
    String.to_integer(kibibytes) * 1024
  end
end
