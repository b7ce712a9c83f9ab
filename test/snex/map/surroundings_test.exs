defmodule Snex.Map.SurroundingsTest do
  # What a map prints and calls belongs to the process that has asked for it.
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  require Logger

  setup do
    script = """
    import decimal, contextvars, snex

    variable = contextvars.ContextVar("variable", default=0)

    def show(x):
        print(f"p{x}")
        return x

    def count(x):
        variable.set(variable.get() + 1)
        return variable.get()

    def surroundings(x): return snex.call_sync("Elixir.Snex.Map.SurroundingsTest", "surroundings", [])
    async def surroundings_later(x): return await snex.call("Elixir.Snex.Map.SurroundingsTest", "surroundings", [])
    def nested(f): return f()
    """

    {:ok, inp: start_interpreter!(init_script: script)}
  end

  # Called by Python.
  def surroundings, do: [Process.group_leader(), Process.get(:"$callers"), Logger.metadata()[:order]]

  test "prints appear where the calling process prints, in order", %{inp: inp} do
    for opts <- [[], [stream: true], [run: :thread], [demand: 1], [concurrency: 1]] do
      text = capture_io(fn -> assert inp |> Snex.map("show", 1..500, opts) |> Enum.count() == 500 end)
      assert text == Enum.map_join(1..500, &"p#{&1}\n")
    end

    text = capture_io(fn -> assert inp |> Snex.map("show", 1..500, concurrency: 4) |> Enum.count() == 500 end)
    assert text |> String.split() |> Enum.sort() == 1..500 |> Enum.map(&"p#{&1}") |> Enum.sort()
    assert capture_io(fn -> Snex.map(inp, "show", 1..5, output: :discard) end) == ""
  end

  test "what it calls has the caller's group leader, $callers and Logger metadata", %{inp: inp} do
    for function <- ["surroundings", "surroundings_later"],
        opts <- [[], [run: :thread], [concurrency: 2], [stream: true]] do
      {:ok, device} = StringIO.open("")
      test = self()

      mapper =
        Task.async(fn ->
          Process.group_leader(self(), device)
          Logger.metadata(order: 17)
          inp |> Snex.map(function, 1..300, opts) |> Enum.to_list()
        end)

      for {:ok, [leader, callers, order]} <- Task.await(mapper, :infinity) do
        assert {opts, leader, order} == {opts, device, 17}
        assert mapper.pid in callers
        assert test in callers
      end
    end
  end

  test "a function that Elixir has passed may map on the interpreter that waits for it", %{inp: inp} do
    callback = Serde.callback(fn -> Snex.map(inp, "abs", 1..100) |> Enum.count(&match?({:ok, _}, &1)) end)

    for run <- [:loop, :thread],
        do: assert(Snex.map(inp, "nested", [callback, callback], run: run) == [ok: 100, ok: 100])

    concurrent =
      Serde.callback(fn ->
        Snex.map(inp, "abs", 1..100, concurrency: 3) |> Enum.count(&match?({:ok, _}, &1))
      end)

    assert Snex.map(inp, "nested", [concurrent]) == [ok: 100]
    # Nothing can be awaited on top of code that waits on the event loop.
    waiting =
      Serde.callback(fn -> Snex.map(inp, "asyncio.sleep", [0, 0]) |> Enum.map(&elem(&1, 0)) |> inspect() end)

    assert Snex.map(inp, "nested", [waiting]) == [ok: "[:error, :error]"]
    assert Snex.map(inp, "nested", [waiting], run: :thread) == [ok: "[:ok, :ok]"]
  end

  test "context variables are set for later calls, as those of calls are", %{inp: inp} do
    env = Snex.make_env!(inp)
    assert Snex.map(env, "count", 1..3) == [ok: 1, ok: 2, ok: 3]
    assert Snex.call(env, "count", [0]) == {:ok, 4}
    assert Snex.map(env, "count", 1..2, run: :thread) == [ok: 5, ok: 6]
  end

  test "Elixir streams among the elements can be read in their calls", %{inp: inp} do
    streams = for n <- 1..20, do: Serde.stream(1..n)
    assert Snex.map(inp, "sum", streams) == for(n <- 1..20, do: {:ok, Enum.sum(1..n)})
    assert Snex.map(inp, "sum", streams, run: :thread) == for(n <- 1..20, do: {:ok, Enum.sum(1..n)})
    eventually(fn -> Interpreter.info(inp).requests_in_flight == 0 end)
  end
end
