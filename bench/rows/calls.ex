defmodule Bench.Calls do
  @moduledoc """
  Small calls: how long one takes, and how many of them fit into a second.
  """

  alias Bench.{Bridge, Python, Row, Stats}

  @code "return 1"
  @bridge_code "result = 1"

  def rows,
    do: [
      eval: &eval/1,
      eval_thread: &eval_thread/1,
      eval_16: &eval_16/1,
      eval_16_python: &eval_16_python/1,
      call: &call/1,
      callback: &callback/1,
      make_env: &make_env/1,
      overload: &overload/1
    ]

  defp eval(context) do
    env = Snex.make_env!(context.interpreter)
    what = "p50 of pyeval(env, \"return 1\"), one caller; floor: the plain bridge"
    beside_bridge(context, "eval", what, fn -> {:ok, 1} = Snex.pyeval(env, @code) end)
  end

  defp eval_thread(context) do
    env = Snex.make_env!(context.interpreter)
    loop = fn -> {:ok, 1} = Snex.pyeval(env, @code) end
    thread = fn -> {:ok, 1} = Snex.pyeval(env, @code, run: :thread) end
    [floor, value] = Stats.in_turns(context.turns, 200, [loop, thread])

    %Row{
      name: "eval_thread",
      what: "p50 of pyeval(env, \"return 1\", run: :thread), one caller; floor: the same on the event loop",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 5.0
    }
  end

  # Calls that block for 20 ms come twice as fast as they can be answered. Their callers wait for 200 ms.
  defp overload(context) do
    {took, patience} = {20, 200}
    count = if context.quick, do: 50, else: 500
    env = Snex.make_env!(context.interpreter)
    code = "import time; time.sleep(took)"
    begun = System.monotonic_time(:millisecond)

    calls =
      for n <- 1..count do
        Process.sleep(max(begun + div(n * took, 2) - System.monotonic_time(:millisecond), 0))
        Task.async(fn -> Snex.pyeval(env, code, %{"took" => took / 1_000}, timeout: patience) end)
      end

    answered = Enum.count(Task.await_many(calls, :infinity), &match?({:ok, _}, &1))
    seconds = (System.monotonic_time(:millisecond) - begun) / 1_000

    %Row{
      name: "overload",
      what: "calls answered per second, of twice as many as Python can answer; floor: as many as it can",
      floor: [1_000 / took],
      value: [answered / seconds],
      unit: :per_second,
      goal: :at_least,
      target: 0.8
    }
  end

  defp make_env(context) do
    what = "p50 of make_env; floor: a call of the plain bridge"
    beside_bridge(context, "make_env", what, fn -> {:ok, _env} = Snex.make_env(context.interpreter) end)
  end

  defp beside_bridge(context, name, what, fun) do
    [floor, value] = Stats.in_turns(context.turns, 200, [bridge(context), fun])
    %Row{name: name, what: what, floor: floor, value: value, unit: :ns, goal: :at_most, target: 0.6}
  end

  defp call(context) do
    count = 200

    code = """
    import time
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        await snex.call("erlang", "abs", [1])
        times.append(time.perf_counter_ns() - start)
    return times
    """

    run = fn -> Snex.pyeval!(context.interpreter, code, %{"count" => count}, timeout: 60_000) end
    bridge = fn -> for _ <- 1..count, do: Stats.time(fn -> Bridge.eval(context.bridge, @bridge_code) end) end
    {run.(), bridge.()}
    turns = for _ <- 1..context.turns, do: {bridge.(), run.()}
    {floor, value} = Enum.unzip(turns)

    %Row{
      name: "call",
      what: "p50 of `await snex.call(...)` from Python; floor: a call of the plain bridge",
      floor: List.flatten(floor),
      value: List.flatten(value),
      unit: :ns,
      goal: :at_most,
      target: 0.6
    }
  end

  # Both in one piece of code, in alternation, so that they share whatever the machine does meanwhile.
  defp callback(context) do
    code = """
    import time

    async def awaited():
        start = time.perf_counter_ns()
        await snex.call("erlang", "abs", [1])
        return time.perf_counter_ns() - start

    def called():
        start = time.perf_counter_ns()
        f(1)
        return time.perf_counter_ns() - start

    floor, value = [], []
    for _ in range(count):
        floor.append(await awaited())
        value.append(called())
    return floor, value
    """

    vars = %{"count" => 200, "f" => Snex.Serde.callback(&:erlang.abs/1)}
    run = fn -> Snex.pyeval!(context.interpreter, code, vars, timeout: 60_000) end
    run.()
    {floor, value} = Enum.unzip(for _ <- 1..context.turns, do: run.())

    %Row{
      name: "callback",
      what: "p50 of a callback on the event loop's thread; floor: `await snex.call(...)`",
      floor: List.flatten(floor),
      value: List.flatten(value),
      unit: :ns,
      goal: :at_most,
      target: 1.2
    }
  end

  defp eval_16(context) do
    {floor, value} =
      for(
        _ <- 1..context.runs,
        do: {per_second(context, bridge(context)), per_second(context, snex(context))}
      )
      |> Enum.unzip()

    %Row{
      name: "eval_16",
      what: "calls per second of 16 callers; floor: the plain bridge with 16 callers",
      floor: floor,
      value: value,
      unit: :per_second,
      goal: :at_least,
      target: 1.5
    }
  end

  defp eval_16_python(context) do
    floor = for ns <- Python.floor(context, "loop", [context.runs]), do: 1_000_000_000 / ns
    value = for _ <- 1..context.runs, do: per_second(context, snex(context))

    %Row{
      name: "eval_16_python",
      what:
        "calls per second of 16 callers; floor: a loop in Python that unpickles, runs, packs, without I/O",
      floor: floor,
      value: value,
      unit: :per_second,
      goal: :at_least,
      target: 0.2
    }
  end

  defp bridge(context), do: fn -> 1 = Bridge.eval(context.bridge, @bridge_code) end

  defp snex(context) do
    env = Snex.make_env!(context.interpreter)
    fn -> {:ok, 1} = Snex.pyeval(env, @code) end
  end

  @doc "Calls per second of so many callers at once."
  def per_second(context, call, callers \\ 16) do
    each = div(context.calls, callers)

    time =
      Stats.time(fn ->
        1..callers
        |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..each, do: call.() end) end)
        |> Task.await_many(:infinity)
      end)

    each * callers * 1_000_000_000 / time
  end
end
