defmodule Snex.Stream.NodesTest do
  # Streams of interpreters on other nodes. Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO
  import Snex.Peer, only: [at_rest?: 1]

  alias Snex.Object
  alias Snex.Peer

  @endless """
  try:
      n = 0
      while True:
          yield n
          n += 1
  finally: snex.send_sync(test, "closed")
  """

  setup_all {Peer, :two_nodes}

  setup %{b: b} do
    script =
      marks() <>
        "\ndef left():\n  import gc; from snex._eval import objects\n  gc.collect()\n  return len(objects.table), len(marks)"

    {:ok, there: Peer.start_interpreter!(b, init_script: script)}
  end

  defp in_flight(interpreter), do: Interpreter.info(interpreter).requests_in_flight
  defp left(interpreter), do: Snex.call!(interpreter, "left", [], timeout: 60_000)

  test "items come in order, by the thousand", %{there: there} do
    assert there |> Snex.stream("yield from range(3_000)") |> Enum.to_list() == Enum.to_list(0..2_999)
    assert there |> Snex.stream({"range", [100]}, demand: 1) |> Enum.to_list() == Enum.to_list(0..99)
    assert in_flight(there) == 0
  end

  test "an error is raised behind the items before it", %{there: there} do
    test = self()
    stream = Snex.stream(there, "yield 1; yield 2; raise KeyError('k')")
    assert_raise Error, ~r/KeyError/, fn -> Enum.each(stream, &send(test, {:item, &1})) end
    assert_received {:item, 1}
    assert_received {:item, 2}

    assert_raise ArgumentError, ~r/names of variables/, fn ->
      Enum.to_list(Snex.stream(there, "yield 1", %{x: 1}))
    end

    assert %Error{code: :response_timeout} =
             catch_error(
               there
               |> Snex.stream("import asyncio\nawait asyncio.sleep(10); yield 1", timeout: 50)
               |> Enum.to_list()
             )

    eventually(fn -> in_flight(there) == 0 end)
  end

  test "objects come as items, are used, and are dropped", %{there: there, b: b} do
    Task.await(
      Task.async(fn ->
        objects =
          there |> Snex.stream("for n in range(300): yield n, mark()", returns: :auto) |> Enum.to_list()

        assert Enum.map(objects, &elem(&1, 0)) == Enum.to_list(0..299)
        {_n, %Object{} = last} = List.last(objects)
        assert Object.type(last) == "Mark"
        assert {:ok, "<" <> _} = Object.repr(last)
        assert left(there) == {300, 300}
        # Held until here.
        assert length(objects) == 300
        items = Snex.pyeval!(there, "return [mark(), 1]", %{}, returns: :object)
        assert [%Object{}, 1] = Enum.to_list(items)
        assert Enum.count(items) == 2
        nil
      end),
      :infinity
    )

    eventually(fn -> left(there) == {0, 0} end, 1_000)
    eventually(fn -> at_rest?([node(), b]) end, 1_000)
  end

  test "an early end closes the generator", %{there: there} do
    assert there |> Snex.stream(@endless, %{"test" => self()}) |> Enum.take(3) == [0, 1, 2]
    assert_receive "closed", 60_000
    eventually(fn -> in_flight(there) == 0 end)
  end

  test "a consumer that is killed closes the generator", %{there: there} do
    test = self()

    for _ <- 1..10 do
      consumer =
        spawn(fn ->
          there |> Snex.stream(@endless, %{"test" => test}) |> Enum.each(&send(test, {:item, &1}))
        end)

      assert_receive {:item, 0}, 60_000
      Process.exit(consumer, :kill)
      assert_receive "closed", 60_000
      flush_items()
    end

    eventually(fn -> in_flight(there) == 0 end)
  end

  defp flush_items do
    receive do
      {:item, _} -> flush_items()
    after
      0 -> :ok
    end
  end

  test "what is printed comes out here, and calls run there in the name of the consumer", %{
    there: there,
    b: b
  } do
    text =
      capture_io(fn ->
        assert there
               |> Snex.stream("print('a'); yield 1; print('b'); yield await Elixir.Kernel.node()")
               |> Enum.to_list() == [1, b]
      end)

    assert text == "a\nb\n"
    # It has Snex, and not this module.
    callers = there |> Snex.stream("yield await Elixir.Process.get(snex.Atom('$callers'))") |> Enum.at(0)
    assert self() in callers
  end

  test "a consumer whose node is cut off closes the generator", %{there: there, b: b} do
    {c, control} = Peer.start_node!()
    env = Snex.make_env!(there, %{"state" => %{"items" => 0, "closed" => false}})
    state = fn key -> Snex.pyeval!(env, "return state[key]", %{"key" => key}) end
    code = "try:\n  while True:\n    state['items'] += 1\n    yield 1\nfinally: state['closed'] = True"
    # It is begun there.
    consumer = Node.spawn(c, Enum, :count, [Snex.stream(env, code)])
    eventually(fn -> state.("items") > 1_000 end)
    refute state.("closed")
    :peer.call(control, :erlang, :disconnect_node, [b])
    eventually(fn -> state.("closed") end)
    eventually(fn -> in_flight(there) == 0 end)
    # Its own node may be slower to notice.
    eventually(fn -> not :peer.call(control, Process, :alive?, [consumer]) end)
  end

  test "an interpreter whose node goes is an error" do
    {c, control} = Peer.start_node!()
    far = Peer.start_interpreter!(c)

    for name <- [far, {:unknown, c}] do
      if is_pid(name) do
        assert %Error{code: :call_failed, reason: {:nodedown, ^c}} =
                 catch_error(
                   name
                   |> Snex.stream("import asyncio\nyield 1\nyield 2\nawait asyncio.Event().wait()")
                   |> Enum.each(fn n -> if n == 1, do: Peer.stop_node(control) end)
                 )
      else
        assert %Error{code: :call_failed} = catch_error(name |> Snex.stream("yield 1") |> Enum.to_list())
      end
    end
  end

  # The process that receives a stream for this one.
  defp courier(interpreter) do
    label = {:label, {Snex.Stream.Courier, self(), interpreter}}
    [courier] = for pid <- :erpc.call(node(interpreter), Process, :list, []), label(pid) == label, do: pid
    courier
  end

  defp label(pid), do: :erpc.call(node(pid), Process, :info, [pid, :label])

  # Code that other nodes have as well: suspends at a 0 and a 1.
  defp suspending do
    {reducer, _binding} =
      Code.eval_string("fn n, acc -> {if(n in [0, 1], do: :suspend, else: :cont), [n | acc]} end")

    reducer
  end

  # One of which frames have arrived behind the one that has the 1.
  defp in_hand(inp, code) do
    stream = Snex.stream(inp, code, %{}, demand: 5, returns: :auto)
    {:suspended, [0], go_on} = Enumerable.reduce(stream, {:cont, []}, suspending())
    courier = courier(inp)
    eventually(fn -> length(:sys.get_state(courier).frames.queue) == 2 end)
    {:suspended, [1], go_on} = go_on.({:cont, []})
    go_on
  end

  test "a process on another node goes on, also with what has arrived", %{b: b} do
    inp = start_interpreter!(init_script: marks())
    go_on = in_hand(inp, "yield from range(300)")
    assert {:halted, items} = :erpc.call(b, :erlang, :apply, [go_on, [{:cont, []}]])
    assert Enum.reverse(items) == Enum.to_list(2..299)
    eventually(fn -> in_flight(inp) == 0 end)
  end

  test "objects that had arrived before do not go with it to another node", %{b: b} do
    inp = start_interpreter!(init_script: marks())
    go_on = in_hand(inp, "for n in range(300): yield n if n < 3 else mark()")
    error = catch_error(:erpc.call(b, :erlang, :apply, [go_on, [{:cont, []}]]))
    assert {:exception, %Error{code: :call_failed, reason: reason}, _stack} = error
    assert reason =~ "is enumerated on another node now"
    eventually(fn -> in_flight(inp) == 0 end)
  end

  test "a courier that nobody has asked for anything gives up, and one that has been asked does not", %{
    there: there
  } do
    stream = Snex.stream(there, @endless, %{"test" => self()})
    {:suspended, 0, go_on} = Enumerable.reduce(stream, {:cont, nil}, fn n, _acc -> {:suspend, n} end)
    send(courier(there), :unclaimed)
    assert {:suspended, 1, go_on} = go_on.({:cont, nil})
    assert {:halted, nil} = go_on.({:halt, nil})
    assert_receive "closed", 60_000

    # As if this process had not been told of it.
    opts = Snex.CallOptions.stream!([], :value)
    request = Snex.Request.eval(nil, %Snex.Code{src: "while True: yield 1"}, %{}, opts)
    consumer = {self(), Snex.Interpreter.Origin.surroundings()}
    options = %{deadline: :infinity, on_timeout: :leave, output: nil}
    args = [request, opts.encoding_opts, consumer]
    assert {:ok, ^there, courier, _id} = Snex.Remote.run(there, Snex.Stream.Courier, :start, args, options)
    monitor = Process.monitor(courier)
    send(courier, :unclaimed)
    assert_receive {:DOWN, ^monitor, :process, ^courier, :normal}, 60_000
    eventually(fn -> in_flight(there) == 0 end)
  end

  test "interpreters are found by name and node", %{b: b} do
    name = :"stream_#{System.unique_integer([:positive])}"
    Peer.start_interpreter!(b, name: name)
    assert {name, b} |> Snex.stream("yield from 'ab'") |> Enum.to_list() == ["a", "b"]
  end
end
