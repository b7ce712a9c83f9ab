defmodule Bench.Streams do
  @moduledoc """
  Streams of what Python produces.
  """

  alias Bench.{Row, Stats}

  @items 1_000_000

  # Between two items, in ms, and items of one turn.
  @pause 10
  @chunk 20

  def rows,
    do: [stream_ints: &stream_ints/1, stream_item: &stream_item/1, stream_memory: &stream_memory/1]

  defp stream_ints(context) do
    env = Snex.make_env!(context.interpreter)
    code = "for n in range(#{@items}): yield n"
    list = fn -> {:ok, [_ | _]} = Snex.pyeval(env, "return list(range(#{@items}))", timeout: :infinity) end
    stream = fn -> @items = env |> Snex.stream(code) |> Enum.reduce(0, fn _n, count -> count + 1 end) end
    [floor, value] = apart(fn -> Stats.in_turns(context.runs, 1, [list, stream]) end)

    %Row{
      name: "stream_ints",
      what: "a stream of #{@items} ints from a generator; floor: pyeval that returns them as a list",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 10.0
    }
  end

  # In a process with a clean heap.
  defp apart(fun), do: Task.await(Task.async(fun), :infinity)

  # `:os.perf_counter/1` and `time.monotonic_ns()` read the same clock.
  defp stream_item(context) do
    env = Snex.make_env!(context.interpreter)
    code = "import time\nwhile True:\n  time.sleep(#{@pause / 1000})\n  yield time.monotonic_ns()"

    call = fn ->
      Process.sleep(@pause)
      start = :os.perf_counter(:nanosecond)
      {:ok, 1} = Snex.pyeval(env, "return 1")
      :os.perf_counter(:nanosecond) - start
    end

    turns =
      for _ <- 1..max(div(context.turns, 3), 1) do
        calls = for _ <- 1..@chunk, do: call.()

        items =
          env |> Snex.stream(code) |> Stream.map(&(:os.perf_counter(:nanosecond) - &1)) |> Enum.take(@chunk)

        {calls, items}
      end

    {floor, value} = Enum.unzip(turns)

    %Row{
      name: "stream_item",
      what:
        "p50 from `yield` in Python to the consumer, an item each #{@pause} ms; floor: pyeval(env, \"return 1\"), a call each #{@pause} ms",
      floor: List.flatten(floor),
      value: List.flatten(value),
      unit: :ns,
      goal: :at_most,
      target: 1.2
    }
  end

  # A consumer takes so many items at a time, which makes 1,000 a second.
  @at_once 10

  # What both sides have after a second, and after a minute.
  defp stream_memory(context) do
    env = Snex.make_env!(context.interpreter)
    code = "n = 0\nwhile True:\n  n += 1\n  yield {'n': n, 'text': 'x' * 100}"
    seconds = if context.quick, do: 2, else: 60
    takes = div(1_000, @at_once)

    [floor, value] =
      apart(fn ->
        env
        |> Snex.stream(code)
        |> Stream.chunk_every(@at_once)
        |> Stream.each(fn _items -> Process.sleep(div(1_000, takes)) end)
        |> Stream.take_every(takes)
        |> Stream.map(fn _items -> resident(context.interpreter) end)
        |> Stream.drop(1)
        |> Enum.take(seconds)
        |> then(&[hd(&1), List.last(&1)])
      end)

    %Row{
      name: "stream_memory",
      what:
        "memory of both sides after #{seconds} s of a fast generator whose consumer takes 1,000 items a second; floor: after 1 s",
      floor: [floor],
      value: [value],
      unit: :bytes,
      goal: :at_most,
      target: 1.03
    }
  end

  defp resident(interpreter) do
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    :erlang.memory(:total) + Snex.Interpreter.info(interpreter).memory
  end
end
