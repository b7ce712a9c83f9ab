defmodule Bench.Feeds do
  @moduledoc """
  Streams of what Elixir produces.
  """

  alias Bench.{Row, Stats}
  alias Snex.Serde

  @items 1_000_000

  @ways [
    feed_thread: {"for, in a worker thread", "for _ in rows: n += 1", :thread},
    feed_loop: {"for, on the event loop's thread", "for _ in rows: n += 1", :loop},
    feed_async: {"async for", "async for _ in rows: n += 1", :loop}
  ]

  def rows, do: for({name, way} <- @ways, do: {name, &feed(name, way, &1)})

  defp feed(name, {what, loop, run}, context) do
    env = Snex.make_env!(context.interpreter)
    items = Enum.to_list(1..@items)

    list = fn ->
      {:ok, @items} = Snex.pyeval(env, "return len(rows)", %{"rows" => items}, timeout: :infinity)
    end

    stream = fn ->
      vars = %{"rows" => Serde.stream(1..@items)}
      {:ok, @items} = Snex.pyeval(env, "n = 0\n#{loop}\nreturn n", vars, run: run, timeout: :infinity)
    end

    [floor, value] = Stats.in_turns(context.runs, 1, [list, stream])

    %Row{
      name: to_string(name),
      what: "a stream of #{@items} ints into Python, #{what}; floor: pyeval with them as a list",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 15.0
    }
  end
end
