defmodule Bench.Start do
  @moduledoc """
  Starting interpreters, with a small VM and with a large one.
  """

  alias Bench.{Python, Row}

  def rows, do: [start: &start/1, start_large: &start_large/1]

  defp start(context) do
    %Row{
      name: "start",
      what: "from start_link to the first answer; floor: python -c \"import asyncio\"",
      floor: Python.floor(context, "start", [context.runs * 2]),
      value: started(context),
      unit: :ns,
      goal: :at_most,
      target: 1.15
    }
  end

  defp start_large(context) do
    size = if context.quick, do: 256, else: 4096
    small = held(100, fn -> started(context) end)
    large = held(size, fn -> started(context) end)

    %Row{
      name: "start_large",
      what: "the same while the VM holds #{size} MiB; floor: while it holds 100 MiB",
      floor: small,
      value: large,
      unit: :ns,
      goal: :at_most,
      target: 1.2
    }
  end

  # The time to the first answer alone: an interpreter that stops is not part of it.
  defp started(context), do: for(_ <- 0..(context.runs * 2), do: start_and_stop(context)) |> tl()

  defp start_and_stop(context) do
    start = System.monotonic_time(:nanosecond)
    {:ok, interpreter} = Snex.Interpreter.start_link(python: context.python)
    {:ok, 1} = Snex.pyeval(interpreter, "return 1")
    time = System.monotonic_time(:nanosecond) - start
    Snex.Interpreter.stop(interpreter)
    time
  end

  # Runs `fun` while the VM holds so many MiB that have been written to.
  defp held(mebibytes, fun) do
    binaries = for _ <- 1..mebibytes, do: :binary.copy(<<1>>, 1024 * 1024)
    result = fun.()
    # They are needed until here.
    ^mebibytes = length(binaries)
    result
  end
end
