defmodule Snex.LeaksTest do
  # Not async: it counts what this VM holds.
  use Snex.Case

  alias Snex.Env
  alias Snex.Figures
  alias Snex.Native
  alias Snex.Object

  # A few of each in every run, and as many as are promised with `mix test --only long`. Prints the figures before and
  # after, and writes them to _build/reliability.

  @moduletag :capture_log
  @moduletag timeout: 1_800_000

  # By which memory may differ, however often things were done: what allocators keep for the next time, and caches that are
  # bounded. A million times 17 bytes is more.
  @slack 16 * 1024 * 1024

  @callers 32

  setup_all do
    Figures.load_modules()
  end

  for {count, tag} <- [{20, :few}, {1_000, :long}] do
    @tag tag
    test "#{count} interpreters that start and end, in every way, leave nothing behind" do
      compare("interpreters", unquote(count), 0, &interpreter(&1, &2))
    end
  end

  for {count, tag} <- [{10_000, :few}, {1_000_000, :long}] do
    @tag tag
    test "#{count} environments that are made and dropped leave nothing behind" do
      compare("environments", unquote(count), 2, &environment(&1, &2))
    end

    @tag tag
    test "#{count} objects that are handed out and dropped, in every way, leave nothing behind" do
      compare("objects", unquote(count), 2, &object(&1, &2))
    end

    @tag tag
    test "#{div(count, 10)} streams that end, in every way, leave nothing behind" do
      compare("streams", unquote(div(count, 10)), 2, &stream(&1, &2))
    end

    @tag tag
    test "#{div(count, 10)} streams into Python that end, in every way, leave nothing behind" do
      compare("feeds", unquote(div(count, 10)), 2, &feed(&1, &2))
    end

    @tag tag
    test "#{count} calls that fail, for every reason, leave nothing behind" do
      compare("failures", unquote(count), 2, &failure(&1, &2))
    end
  end

  test "an interpreter that is killed while nobody takes what its tree prints leaves nothing behind" do
    Process.flag(:trap_exit, true)
    kill_while_it_prints()
    before = Figures.rest!([])
    kill_while_it_prints()
    Figures.assert_same(before, Figures.settle(before), @slack)
  end

  defp kill_while_it_prints do
    test = self()

    owner =
      Task.async(fn ->
        Process.flag(:trap_exit, true)
        # A device that never answers.
        Process.group_leader(self(), test)
        {:ok, inp} = Interpreter.start_link()
        {:ok, nil} = Snex.pyeval(inp, "import subprocess; subprocess.Popen(['yes'])", timeout: 60_000)
        send(test, {:prints, inp})
        assert_receive {:EXIT, ^inp, :killed}, 60_000
      end)

    assert_receive {:io_request, _from, _reply_as, _request}, 60_000
    assert_receive {:prints, inp}, 60_000
    Process.exit(inp, :kill)
    Task.await(owner, 60_000)
    assert_receive {:EXIT, _owner, :normal}, 60_000
  end

  # Does `one` `count` times, and compares the figures before and after. `one` gets a number and an interpreter, and returns
  # what it has done.
  defp compare(name, count, interpreters, one) do
    interpreters =
      for _ <- 1..interpreters//1, do: start_interpreter!(init_script: "import asyncio, os, time")

    # What is loaded, cached, or allocated once.
    times(max(div(count, 10), 7), interpreters, one)
    before = Figures.rest!(interpreters)

    {time, done} = :timer.tc(fn -> times(count, interpreters, one) end, :millisecond)
    now = Figures.settle(before, interpreters)

    IO.puts([
      "\n#{name}, #{div(time, 1000)} s: ",
      Enum.map_join(Enum.sort(done), ", ", fn {what, times} -> "#{times} #{what}" end),
      "\n",
      Figures.table([["", "before", "after"] | Figures.rows(before, now)])
    ])

    Figures.write!("leaks-#{name}-#{count}", %{
      done: done,
      ms: time,
      before: before,
      after: now,
      slack: @slack
    })

    assert done |> Map.values() |> Enum.sum() == count
    Figures.assert_same(before, now, @slack)
    refute_received _
  end

  # What came of it, and how often.
  defp times(count, interpreters, one) do
    callers = min(count, if(interpreters == [], do: 6, else: @callers))

    work = fn caller ->
      Process.flag(:trap_exit, true)
      inp = if interpreters != [], do: Enum.at(interpreters, rem(caller, length(interpreters)))
      Enum.reduce(caller..count//callers, %{}, fn n, done -> Map.update(done, one.(n, inp), 1, &(&1 + 1)) end)
    end

    test = self()

    tasks =
      for caller <- 1..callers do
        Task.async(fn ->
          done = work.(caller)
          send(test, {:done, self()})
          receive do: (:leave -> done)
        end)
      end

    for %{pid: pid} <- tasks, do: assert_receive({:done, ^pid}, 1_800_000)
    # Their end would take out what they have left behind.
    eventually(
      fn -> match?(%{pending: 0, cancelling: 0, answering: 0}, Native.resources_count()) end,
      1_000
    )

    for %{pid: pid} <- tasks, do: send(pid, :leave)

    tasks
    |> Task.await_many(:infinity)
    |> Enum.reduce(&Map.merge(&1, &2, fn _what, a, b -> a + b end))
  end

  # ---- Interpreters ------------------------------------------------------------------------

  defp interpreter(n, nil) when rem(n, 7) == 0 do
    assert {:error, %Error{code: :python_runtime_error}} = Interpreter.start_link(init_script: "1 / 0")
    "with a script that fails"
  end

  defp interpreter(n, nil) do
    {:ok, inp} = Interpreter.start_link(output: :discard)
    env = Snex.make_env!(inp, %{"n" => n})
    assert Snex.pyeval(env, "print(n); return n", timeout: 60_000) == {:ok, n}
    ended(rem(n, 7), inp)
  end

  defp ended(how, inp) when how in [1, 2] do
    Interpreter.stop(inp)
    assert_receive {:EXIT, ^inp, :normal}, 60_000
    "stopped"
  end

  defp ended(3, inp) do
    Process.exit(inp, :kill)
    assert_receive {:EXIT, ^inp, :killed}, 60_000
    "killed in Elixir"
  end

  defp ended(4, inp) do
    assert {:error, %Error{reason: {:exit_status, 3}}} = Snex.pyeval(inp, "import os; os._exit(3)")
    assert_receive {:EXIT, ^inp, %Error{}}, 60_000
    "that exit"
  end

  defp ended(5, inp) do
    assert Figures.kill("KILL", Interpreter.os_pid(inp))
    assert_receive {:EXIT, ^inp, %Error{reason: {:exit_status, 137}}}, 60_000
    "with Python killed"
  end

  defp ended(6, inp) do
    assert Figures.kill("KILL", Figures.parent(Interpreter.os_pid(inp)))
    assert_receive {:EXIT, ^inp, %Error{reason: {:exit_status, 137}}}, 60_000
    "with the warden killed"
  end

  # ---- Environments ------------------------------------------------------------------------

  defp environment(n, inp) when rem(n, 16) == 0 do
    env = Env.disable_gc(Snex.make_env!(inp, %{"n" => n}, []))
    :ok = Snex.destroy_env(env)
    "destroyed"
  end

  defp environment(n, inp) when rem(n, 16) == 1 do
    env = Snex.make_env!(inp, %{"n" => n}, [])
    copy = Snex.make_env!(%{"m" => n}, from: {env, only: ["n"]})
    assert Snex.pyeval(copy, "def own(): return n + m\nreturn own()", timeout: 60_000) == {:ok, 2 * n}
    "copied and used"
  end

  defp environment(n, inp) do
    assert {:ok, %Env{}} = Snex.make_env(inp, %{"n" => n})
    "made"
  end

  # ---- Objects -----------------------------------------------------------------------------

  defp object(n, inp) when rem(n, 16) == 0 do
    object = Object.disable_gc(Snex.call!(inp, "object"))
    assert {:ok, "<object" <> _} = Object.repr(object, timeout: 60_000)
    :ok = Object.release(object)
    "released"
  end

  defp object(n, inp) when rem(n, 16) == 1 do
    code = "x = [object(), object()]; return [x[0], {'a': x[1], x[0]: x}, {x[1]}]"
    assert {:ok, [%Object{} = one, _map, _set]} = Snex.pyeval(inp, code, returns: :auto, timeout: 60_000)
    assert {:ok, true} = Snex.call(inp, "isinstance", [one, Snex.get!(inp, "object")], timeout: 60_000)
    "at any depth, and used"
  end

  defp object(n, inp) when rem(n, 16) == 2 do
    code =
      "await snex.send(to, snex.keep(object())); return await Elixir.Map.get({1: snex.keep(object())}, 1)"

    assert {:ok, %Object{}} = Snex.pyeval(inp, code, %{"to" => self()}, returns: :auto, timeout: 60_000)
    assert_receive %Object{}, 60_000
    "in messages and calls"
  end

  defp object(n, inp) when rem(n, 16) == 3 do
    code = "return [snex.keep(object()), object()]"
    assert {:error, %Error{exception: %{type: "TypeError"}}} = Snex.pyeval(inp, code, timeout: 60_000)
    "of calls that fail"
  end

  defp object(n, inp) when rem(n, 16) == 4 do
    env = Snex.make_env!(inp)
    assert {:ok, %Object{}} = Snex.pyeval(env, "return globals()", returns: :object, timeout: 60_000)
    "that refer to their environment"
  end

  defp object(n, inp) when rem(n, 160) == 5 do
    caller = spawn(fn -> Snex.call(inp, "object", [], timeout: :infinity) end)
    Process.exit(caller, :kill)
    "of callers that are killed"
  end

  defp object(_n, inp) do
    assert {:ok, %Object{}} = Snex.call(inp, "object", [], timeout: 60_000)
    "dropped"
  end

  # ---- Streams -----------------------------------------------------------------------------

  defp stream(n, inp) when rem(n, 8) == 0 do
    assert inp |> Snex.stream("for x in range(n): yield x", %{"n" => rem(n, 300)}) |> Enum.sum() >= 0
    "from generators"
  end

  defp stream(n, inp) when rem(n, 8) == 1 do
    assert inp
           |> Snex.stream("import asyncio\nwhile True:\n  yield 1\n  await asyncio.sleep(0)")
           |> Enum.take(3) == [1, 1, 1]

    "cut short, asynchronous"
  end

  defp stream(n, inp) when rem(n, 8) == 2 do
    assert inp |> Snex.stream("while True: yield 1") |> Enum.take(rem(n, 300) + 1) |> List.first() == 1
    "cut short"
  end

  defp stream(n, inp) when rem(n, 8) == 3 do
    assert %Error{exception: %{type: "ValueError"}} =
             catch_error(
               inp
               |> Snex.stream("yield from range(n)\nraise ValueError(n)", %{"n" => rem(n, 300)})
               |> Enum.to_list()
             )

    "that raise"
  end

  defp stream(n, inp) when rem(n, 8) == 4 do
    assert [%Object{}, %Object{} | _] =
             inp |> Snex.stream("while True: yield object()", returns: :auto) |> Enum.take(2 + rem(n, 30))

    "of objects, cut short"
  end

  defp stream(n, inp) when rem(n, 8) == 5 do
    assert [%Object{} | _] =
             inp |> Snex.stream("return [object(), object()]", returns: :auto) |> Enum.to_list()

    "of objects"
  end

  defp stream(n, inp) when rem(n, 80) == 6 do
    test = self()
    code = "while True: yield [object()] * 20"

    {consumer, monitor} =
      spawn_monitor(fn ->
        inp |> Snex.stream(code, returns: :auto) |> Enum.each(fn [o | _] -> send(test, {n, o.id}) end)
      end)

    assert_receive {^n, _object}, 60_000
    Process.exit(consumer, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^consumer, :killed}, 60_000
    received_all(n)
    "of consumers that were killed"
  end

  defp stream(n, inp) when rem(n, 80) == 7 do
    code = "import asyncio\nyield 1\nawait asyncio.Event().wait()"

    assert %Error{code: :response_timeout} =
             catch_error(inp |> Snex.stream(code, timeout: 5) |> Enum.to_list())

    "timed out"
  end

  defp stream(_n, inp) do
    assert inp |> Snex.stream("return 'abc'", demand: 1) |> Enum.join() == "abc"
    "of containers"
  end

  defp received_all(n) do
    receive do
      {^n, _} -> received_all(n)
    after
      0 -> :ok
    end
  end

  # ---- Streams into Python -----------------------------------------------------------------

  defp feed(n, inp) when rem(n, 8) == 0 do
    rows = Serde.stream(1..(rem(n, 300) + 1))
    assert Snex.pyeval(inp, "return sum(rows)", %{"rows" => rows}) == {:ok, Enum.sum(1..(rem(n, 300) + 1))}
    "taken to the end"
  end

  defp feed(n, inp) when rem(n, 8) == 1 do
    rows = Serde.stream(Stream.cycle(["text", n]))
    assert {:ok, "text"} = Snex.pyeval(inp, "async for row in rows: return row", %{"rows" => rows})
    "cut short"
  end

  defp feed(n, inp) when rem(n, 8) == 2 do
    rows =
      Serde.stream(
        Stream.map(1..3, fn
          3 -> raise("#{n}")
          n -> n
        end)
      )

    assert {:error, %Error{exception: %{type: "ElixirError"}}} =
             Snex.pyeval(inp, "list(rows)", %{"rows" => rows})

    "that raise"
  end

  defp feed(n, inp) when rem(n, 8) == 3 do
    rows = [Serde.stream(Stream.cycle([n])), Serde.stream([])]
    assert {:ok, nil} = Snex.pyeval(inp, "x = rows", %{"rows" => rows})
    "never begun"
  end

  defp feed(n, inp) when rem(n, 8) == 4 do
    rows = [Serde.stream(Stream.cycle([n])), Serde.object("builtins", "int", ["x"]), Serde.stream([])]
    assert {:error, %Error{}} = Snex.pyeval(inp, "return rows", %{"rows" => rows})
    "never loaded"
  end

  defp feed(n, inp) when rem(n, 8) == 5 do
    code = "rows = await f()\nreturn next(rows)"
    assert Snex.pyeval(inp, code, %{"f" => fn -> Serde.stream(Stream.cycle([n])) end}) == {:ok, n}
    "returned to Python"
  end

  defp feed(n, inp) when rem(n, 80) == 6 do
    test = self()
    code = "await snex.send(pid, (n, next(rows)))\nimport asyncio\nawait asyncio.Event().wait()"

    {caller, monitor} =
      spawn_monitor(fn ->
        vars = %{"rows" => Serde.stream(Stream.cycle([1])), "pid" => test, "n" => n}
        Snex.pyeval(inp, code, vars, timeout: :infinity)
      end)

    assert_receive {^n, 1}, 60_000
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}, 60_000
    "of callers that were killed"
  end

  defp feed(n, inp) do
    {:ok, object} = Snex.call(inp, "object", [], returns: :object)
    rows = Serde.stream([object, n])
    assert {:ok, [_, ^n]} = Snex.pyeval(inp, "return [str(next(rows)), *rows]", %{"rows" => rows})
    "of objects"
  end

  # ---- Failures ----------------------------------------------------------------------------

  # Rare ones first: they take longer.
  defp failure(n, inp) when rem(n, 5_000) == 7 do
    # Or, where the others have made it wait for so long that it cannot be done in time, it is refused.
    assert {:error, %Error{code: code}} = Snex.pyeval(inp, "time.sleep(1000)", timeout: 5)
    assert code in [:response_timeout, :overloaded]
    "timed out, blocking"
  end

  defp failure(n, inp) when rem(n, 1_000) == 8 do
    code = "await snex.send(to, n); await asyncio.Event().wait()"
    here = self()
    vars = %{"to" => here, "n" => n}
    {caller, monitor} = spawn_monitor(fn -> Snex.pyeval(inp, code, vars, timeout: :infinity) end)
    assert_receive ^n, 60_000
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}, 60_000
    "of callers that were killed"
  end

  defp failure(n, inp) when rem(n, 100) == 9 do
    assert {:error, %Error{code: :response_timeout}} =
             Snex.pyeval(inp, "await asyncio.sleep(1000)", timeout: 1)

    "timed out"
  end

  defp failure(n, inp) when rem(n, 100) == 10 do
    assert {:error, %Error{exception: %{type: "SyntaxError"}}} = pyeval(inp, "x#{n} = = 1")
    "that do not parse"
  end

  defp failure(n, inp) when rem(n, 100) == 11 do
    assert {:error, %Error{exception: %{type: "ElixirError"}}} =
             pyeval(inp, "await Elixir.Enum.sum(n)", %{"n" => n})

    "of functions that raise"
  end

  defp failure(n, inp) when rem(n, 100) == 12 do
    assert {:error, %Error{code: :call_failed}} = pyeval(inp, "return x", %{"x" => %Snex.Broken{how: :raise}})
    "of encoders that raise"
  end

  defp failure(n, inp) when rem(n, 100) == 13 do
    assert {:error, %Error{reason: reason}} = pyeval(inp, "raise KeyError(#{n})")
    assert reason == "#{n}"
    "with code of their own"
  end

  defp failure(n, inp) when rem(n, 100) == 14 do
    env = Snex.make_env!(inp)
    assert {:error, %Error{code: :env_key_not_found}} = Snex.make_env(from: {env, only: ["nothing"]})
    "for a name that is not there"
  end

  defp failure(n, inp) when rem(n, 10) == 5 do
    assert {:error, %Error{exception: %{type: "UnicodeDecodeError"}}} =
             pyeval(inp, "return x", %{"x" => <<n::32, 255>>})

    "with a variable that cannot be encoded"
  end

  defp failure(n, inp) when rem(n, 10) == 6 do
    assert {:error, %Error{exception: %{type: "TypeError"}}} =
             pyeval(inp, "return [n, object()]", %{"n" => n})

    "with a result that cannot be encoded"
  end

  defp failure(n, inp) when rem(n, 10) in [7, 8] do
    # Ids of environments begin at 1, and none of these has been made yet.
    gone = %Env{id: 2 ** 60 + n, interpreter: inp, handle: make_ref()}
    assert {:error, %Error{code: :env_not_found}} = pyeval(gone, "return 1")
    "for an environment that is gone"
  end

  defp failure(n, inp) when rem(n, 10) == 9 do
    assert_raise ArgumentError, fn -> pyeval(inp, "return 1", %{n => 1}) end
    "with a name that is none"
  end

  defp failure(n, inp) do
    assert {:error, %Error{code: :python_runtime_error, reason: reason}} =
             pyeval(inp, "raise ValueError(n)", %{"n" => n})

    assert reason == "#{n}"
    "that raise"
  end

  defp pyeval(where, code, vars \\ %{}), do: Snex.pyeval(where, code, vars, timeout: 60_000)
end
