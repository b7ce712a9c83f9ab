defmodule Bench.Map do
  @moduledoc """
  Many small calls of one function.
  """

  alias Bench.{Python, Row, Stats}

  @calls 1_000_000

  def rows, do: [map_list: &map_list/1, map_stream: &map_stream/1]

  defp map_list(context) do
    row(context, "map_list", "a list", fn ->
      @calls = context.interpreter |> Snex.map("math.sqrt", 1..@calls) |> length()
    end)
  end

  defp map_stream(context) do
    row(context, "map_stream", "a stream", fn ->
      @calls =
        context.interpreter
        |> Snex.map("math.sqrt", 1..@calls, stream: true)
        |> Enum.reduce(0, fn {:ok, _root}, count -> count + 1 end)
    end)
  end

  defp row(context, name, what, fun) do
    floor = Python.floor(context, "each", [context.runs])

    # Each time in a process of its own, whose heap is clean.
    value = for _ <- 0..context.runs, do: Task.await(Task.async(fn -> Stats.time(fun) end), :infinity)

    %Row{
      name: name,
      what:
        "Snex.map of math.sqrt over #{@calls} ints, as #{what}; floor: Python loads the pickle of each, calls, and encodes the result",
      floor: floor,
      value: tl(value),
      unit: :ns,
      goal: :at_most,
      target: 2.0
    }
  end
end
