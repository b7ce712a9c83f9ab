defmodule Snex.Serde.StreamNodesTest do
  # Streams for interpreters on other nodes. Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Peer

  setup_all {Peer, :two_nodes}

  setup %{b: b} do
    {:ok, there: Peer.start_interpreter!(b)}
  end

  # Numbers without an end, which say where they are made.
  defp numbers do
    test = self()

    Stream.resource(
      fn ->
        send(test, {:begun, self(), Process.get(:"$callers")})
        0
      end,
      &{[&1], &1 + 1},
      fn _ -> send(test, {:ended, self()}) end
    )
  end

  test "the enumerable runs here, for the caller", %{there: there} do
    test = self()
    rows = Stream.map(1..3_000, & &1)

    for code <- ["return list(rows)", "return [row async for row in rows]"] do
      assert Snex.pyeval(there, code, %{"rows" => Serde.stream(rows)}) == {:ok, Enum.to_list(1..3_000)}
    end

    printed =
      capture_io(fn ->
        printing = Stream.map(numbers(), fn n -> n |> tap(&IO.puts/1) end)

        assert Snex.pyeval(there, "return next(rows)", %{"rows" => Serde.stream(printing, demand: 1)}) ==
                 {:ok, 0}
      end)

    assert printed == "0\n"
    assert_receive {:begun, producer, [^test | _]}, 60_000
    assert node(producer) == node()
    assert_receive {:ended, ^producer}, 60_000
  end

  test "what it raises is raised in Python, behind its items", %{there: there} do
    code = """
    taken = []
    try:
        for row in rows: taken.append(row)
    except snex.ElixirError as error:
        return len(taken), error.kind, error.reason
    """

    rows = Stream.map(1..500, fn n -> if n == 400, do: throw(:enough), else: n end)
    assert Snex.pyeval(there, code, %{"rows" => Serde.stream(rows)}) == {:ok, {399, "throw", :enough}}

    assert_raise ArgumentError, ~r/variable of an environment/, fn ->
      Snex.make_env(there, %{"rows" => Serde.stream([])})
    end
  end

  test "it ends when the caller is killed, or gives up", %{there: there} do
    test = self()
    code = "await snex.send(pid, next(rows))\nimport asyncio\nawait asyncio.sleep(1000)"
    rows = numbers()
    vars = %{"rows" => Serde.stream(rows), "pid" => test}

    caller = spawn(fn -> Snex.pyeval(there, code, vars, timeout: :infinity) end)
    assert_receive {:begun, producer, _callers}, 60_000
    assert_receive 0, 60_000
    Process.exit(caller, :kill)
    assert_receive {:ended, ^producer}, 60_000

    assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(there, code, vars, timeout: 1_000)
    assert_receive {:begun, producer, _callers}, 60_000
    assert_receive {:ended, ^producer}, 60_000
  end

  test "it ends when the interpreter stops", %{there: there} do
    test = self()
    code = "await snex.send(pid, next(rows))\nimport asyncio\nawait asyncio.sleep(1000)"
    vars = %{"rows" => Serde.stream(numbers()), "pid" => test}
    task = Task.async(fn -> Snex.pyeval(there, code, vars, timeout: :infinity) end)
    assert_receive {:begun, producer, _callers}, 60_000
    assert_receive 0, 60_000
    Interpreter.stop(there)
    assert_receive {:ended, ^producer}, 60_000
    assert {:error, %Error{}} = Task.await(task, 60_000)
  end

  test "it ends with the other node" do
    {c, control} = Peer.start_node!()
    there = Peer.start_interpreter!(c)
    test = self()
    code = "await snex.send(pid, next(rows))\nimport asyncio\nawait asyncio.sleep(1000)"
    vars = %{"rows" => Serde.stream(numbers()), "pid" => test}
    task = Task.async(fn -> Snex.pyeval(there, code, vars, timeout: :infinity) end)
    assert_receive {:begun, producer, _callers}, 60_000
    assert_receive 0, 60_000
    monitor = Process.monitor(producer)
    Peer.stop_node(control)
    assert_receive {:DOWN, ^monitor, :process, ^producer, _reason}, 60_000
    assert {:error, %Error{reason: {:nodedown, ^c}}} = Task.await(task, 60_000)
  end

  test "Python gets an error when the node of the enumerable goes", %{there: there} do
    # Made there, used here, for an interpreter of a third node.
    {c, control} = Peer.start_node!()
    {stream, _keeper} = Peer.run(c, Serde, :stream, [Stream.cycle([1])])
    test = self()

    code = """
    await snex.send(pid, next(rows))
    try:
        for row in rows: pass
    except snex.ElixirError as error:
        return error.kind, str(error)
    """

    task = Task.async(fn -> Snex.pyeval(there, code, %{"rows" => stream, "pid" => test}, timeout: 60_000) end)
    assert_receive 1, 60_000
    Peer.stop_node(control)
    assert {:ok, {"exit", message}} = Task.await(task, 60_000)
    assert message =~ "connection"
  end
end
