defmodule Bench.Objects do
  @moduledoc """
  Calls by name, and objects that stay in Python.
  """

  alias Bench.{Row, Stats}

  # Objects in the answer of one call.
  @batch 1_000

  def rows,
    do: [
      call_by_name: &call_by_name/1,
      object_get: &object_get/1,
      handles: &handles/1,
      handles_memory: &handles_memory/1
    ]

  defp call_by_name(context) do
    what = "p50 of Snex.call(py, \"math.sqrt\", [16.0]), one caller; floor: pyeval(env, \"return 1\")"
    call = fn -> {:ok, 4.0} = Snex.call(context.interpreter, "math.sqrt", [16.0]) end
    beside_eval(context, "call_by_name", what, call, 1.1)
  end

  defp object_get(context) do
    what = "p50 of Snex.Object.get(object, \"x\"), one caller; floor: pyeval(env, \"return 1\")"
    object = Snex.call!(context.interpreter, "types.SimpleNamespace", [], kwargs: [x: 1], returns: :object)
    beside_eval(context, "object_get", what, fn -> {:ok, 1} = Snex.Object.get(object, "x") end, 1.2)
  end

  defp beside_eval(context, name, what, fun, target) do
    env = Snex.make_env!(context.interpreter)
    eval = fn -> {:ok, 1} = Snex.pyeval(env, "return 1") end
    [floor, value] = Stats.in_turns(context.turns * 200, 1, [eval, fun])
    %Row{name: name, what: what, floor: floor, value: value, unit: :ns, goal: :at_most, target: target}
  end

  defp handles(context) do
    {handed_out, values} = functions(context)
    [without, with] = Stats.in_turns(context.turns * 2, 5, [values, handed_out])
    call = Stats.median(without)

    %Row{
      name: "handles",
      what: "a handle, made and dropped: beyond a call that returns #{@batch} integers; floor: 1 us",
      floor: [1_000],
      value: for(time <- with, do: max(time - call, 0) / @batch),
      unit: :ns,
      goal: :at_most,
      target: 2.0
    }
  end

  # A million handles, and a tenth of them before the first look.
  defp handles_memory(context) do
    calls = if context.quick, do: 10, else: 1_000
    {handed_out, _values} = functions(context)
    for _ <- 1..div(calls, 10), do: handed_out.()
    before = resident(context)
    for _ <- 1..calls, do: handed_out.()

    %Row{
      name: "handles_memory",
      what: "memory of both sides after #{calls * @batch} handles were made and dropped; floor: before",
      floor: [before],
      value: [resident(context)],
      unit: :bytes,
      goal: :at_most,
      target: 1.1
    }
  end

  # One call with handles of new objects, and the same with values.
  defp functions(context) do
    env = Snex.make_env!(context.interpreter)

    {:ok, nil} =
      Snex.pyeval(env, """
      def objects(count):
          return [object() for _ in range(count)]
      def values(count):
          return [id(object()) for _ in range(count)]
      """)

    objects = fn ->
      {:ok, [%Snex.Object{} | _]} = Snex.call(env, "objects", [@batch])
      :erlang.garbage_collect()
    end

    values = fn ->
      {:ok, [_ | _]} = Snex.call(env, "values", [@batch])
      :erlang.garbage_collect()
    end

    {objects, values}
  end

  # When everything that was dropped has been given back.
  defp resident(context) do
    :erlang.garbage_collect()
    wait_until_dropped(context.interpreter)
    [_, pages | _] = "/proc/self/statm" |> File.read!() |> String.split() |> Enum.map(&String.to_integer/1)
    pages * 4096 + Snex.Interpreter.info(context.interpreter).memory
  end

  defp wait_until_dropped(interpreter) do
    if Snex.Interpreter.info(interpreter).objects > 1 do
      Process.sleep(10)
      wait_until_dropped(interpreter)
    end
  end
end
