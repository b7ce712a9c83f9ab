defmodule Snex.Remote.TrackerTest do
  # Not async: this VM becomes a node meanwhile, and counts what it holds.
  use Snex.Case

  import Snex.Peer, only: [at_rest?: 1, tracked: 1]

  alias Snex.Env
  alias Snex.Handle
  alias Snex.Native
  alias Snex.Peer
  alias Snex.Remote
  alias Snex.Remote.Tracker

  @options %{deadline: :infinity, on_timeout: :leave, output: nil}

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b}, do: {:ok, there: Peer.start_interpreter!(b)}

  defp environments(interpreter), do: Interpreter.info(interpreter).environments

  # Python hears of what is dropped soon after it is counted out.
  defp gone?(env), do: match?({:error, %Error{code: :env_not_found}}, Snex.pyeval(env, "return 1"))

  # In a process of its own: nothing in this one refers to what it made.
  defp elsewhere(fun), do: Task.await(Task.async(fun), :infinity)

  # A process that does nothing.
  defp idle, do: spawn(fn -> receive do: (:never -> :ok) end)

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 60_000
  end

  # Nothing runs on a node meanwhile.
  defp standing_still(node, fun) do
    vm = :erpc.call(node, System, :pid, [])
    {_, 0} = System.cmd("kill", ["-STOP", vm])

    try do
      fun.()
    after
      {_, 0} = System.cmd("kill", ["-CONT", vm])
    end
  end

  # What a call runs on the interpreter's node, to make an environment for `caller`.
  defp make(ticket, caller, there),
    do: [ticket, caller, :infinity, there, Env, :make, [[], %{}, Serde.options!([])], @options]

  defp serve(b, ticket, caller, there), do: :erpc.call(b, Remote, :serve, make(ticket, caller, there))

  describe "a caller" do
    test "that was dead before its call began has it cancelled", %{b: b, there: there} do
      caller = idle()
      kill(caller)
      code = Snex.Code.wrap("await __import__('asyncio').Event().wait()")
      request = Snex.Request.eval(nil, code, %{}, %{run: :loop, returns: :value})

      args = [
        make_ref(),
        caller,
        :infinity,
        there,
        Snex.Request,
        :run,
        [request, Serde.options!([])],
        @options
      ]

      {worker, monitor} = Node.spawn_monitor(b, Remote, :serve, args)
      assert_receive {:DOWN, ^monitor, :process, ^worker, :killed}, 60_000
      eventually(fn -> at_rest?([b]) and Interpreter.info(there).requests_in_flight == 0 end)
    end

    test "that dies before it claims what was returned has it dropped", %{b: b, there: there} do
      {caller, ticket} = {idle(), make_ref()}
      assert {:offered, {:ok, %Env{}}, holder, [handle]} = serve(b, ticket, caller, there)
      assert %{calls: 1, workers: 0, handles: 1} = tracked(b)
      assert environments(there) == 1
      Process.exit(caller, :kill)
      eventually(fn -> at_rest?([b]) and environments(there) == 0 end)
      # Too late.
      elsewhere(fn -> Tracker.claim(holder, ticket, [handle]) end)
      eventually(fn -> at_rest?([node(), b]) end)
    end

    test "that gives up after that has it dropped", %{b: b, there: there} do
      ticket = make_ref()
      assert {:offered, {:ok, %Env{}}, _holder, [_handle]} = serve(b, ticket, self(), there)
      assert tracked(b).handles == 1
      Tracker.cancel(b, ticket)
      eventually(fn -> at_rest?([b]) and environments(there) == 0 end)
    end

    test "that gives up while the work goes on has its result dropped", %{b: b, there: there} do
      os_pid = to_string(Interpreter.os_pid(there))
      ticket = make_ref()
      {_, 0} = System.cmd("kill", ["-STOP", os_pid])
      {_worker, monitor} = Node.spawn_monitor(b, Remote, :serve, make(ticket, self(), there))
      eventually(fn -> tracked(b).calls == 1 end)
      Tracker.cancel(b, ticket)
      {_, 0} = System.cmd("kill", ["-CONT", os_pid])
      assert_receive {:DOWN, ^monitor, :process, _worker, :normal}, 60_000
      eventually(fn -> at_rest?([b]) and environments(there) == 0 end)
    end

    test "that gives up before the work begins has its result dropped", %{b: b, there: there} do
      ticket = make_ref()
      Tracker.cancel(b, ticket)
      assert at_rest?([b])
      assert {:offered, {:ok, %Env{}}, _holder, [_handle]} = serve(b, ticket, self(), there)
      eventually(fn -> at_rest?([b]) and environments(there) == 0 end)
    end

    test "whose other node stands still gives up, and nothing is left when it goes on", %{b: b, there: there} do
      standing_still(b, fn ->
        assert {:error, %Error{code: :response_timeout}} = Snex.make_env(there, timeout: 50)
      end)

      # It has been made, or is about to be, when this is.
      assert {:ok, _env} = Snex.make_env(there, timeout: :infinity)
      :erlang.garbage_collect()
      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end

    test "that is killed at any point leaves nothing behind", %{b: b, there: there} do
      test = self()

      for round <- 1..300 do
        {caller, monitor} =
          spawn_monitor(fn ->
            send(test, {:begun, round})
            for _ <- 1..10, do: Snex.make_env!(there)
          end)

        assert_receive {:begun, ^round}, 60_000
        # Work of about as long as part of a call, or of several.
        Enum.reduce(1..(rem(round, 50) * 4_000 + 1), &Bitwise.bxor/2)
        Process.exit(caller, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^caller, _reason}, 60_000
      end

      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
      assert Snex.pyeval(there, "return 1") == {:ok, 1}
    end
  end

  describe "handles in a result" do
    test "are replaced wherever they are, and live apart", %{b: b, there: there} do
      reference = make_ref()
      result = Remote.run(there, Snex.Offers, :nested, [reference], @options)
      %{set: set, plain: {^reference, [one], _fun}} = result
      [{%Env{} = two, [1, {^one, "two"} | three]}] = for {%Env{}, _} = pair <- result, do: pair
      [four] = Enum.to_list(set)
      assert four in set
      envs = [one, two, three, four]
      for env <- envs, do: assert(node(env.handle) == node())
      assert Enum.map(envs, &Snex.pyeval!(&1, "return x")) == [1, 2, 3, 4]
      assert %{handles: 4, tickets: 1, trackers: 1} = tracked(b)
      assert Native.resources_count().proxies == 4

      # One of them goes, as it does when it is garbage.
      Handle.release(two)
      eventually(fn -> tracked(b).handles == 3 end)
      eventually(fn -> gone?(two) end)
      assert Enum.map([one, three, four], &Snex.pyeval!(&1, "return x")) == [1, 3, 4]
    end

    test "are dropped with the last reference", %{b: b, there: there} do
      elsewhere(fn -> Remote.run(there, Snex.Offers, :nested, [make_ref()], @options) && nil end)
      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end

    test "of objects are as those of environments: counted, kept and released from here", %{
      b: b,
      there: there
    } do
      objects = fn -> :erpc.call(b, Native, :resources_count, []).alive end
      code = "import decimal\nx = decimal.Context()\nreturn [snex.keep(x), {'again': snex.keep(x)}]"
      {:ok, [one, %{"again" => two}]} = Snex.pyeval(there, code)
      assert %{handles: 2, tickets: 1} = tracked(b)
      assert objects.() == 1
      assert Snex.pyeval(there, "return a is b", %{"a" => one, "b" => two}) == {:ok, true}

      assert Handle.release(one) == :ok
      eventually(fn -> tracked(b).handles == 1 end)
      assert Snex.pyeval(there, "return type(b).__name__", %{"b" => two}) == {:ok, "Context"}
      assert Handle.keep(two) == :ok
      assert Handle.release(two) == :ok
      eventually(fn -> at_rest?([b]) and objects.() == 0 end)
    end

    test "are released at once, for whoever uses them next", %{b: b, there: there} do
      for _ <- 1..200 do
        {:ok, object} = Snex.call(there, "list", [[1]], returns: :object)
        assert Handle.release(object) == :ok
        assert {:error, %Error{code: :object_not_found}} = Snex.Object.length(object)
        assert Handle.release(object) == :ok
      end

      eventually(fn -> tracked(b).handles == 0 end)
    end

    test "may be dropped before they are claimed: nothing orders the messages of two processes",
         %{b: b, there: there} do
      elsewhere(fn ->
        ticket = make_ref()
        serve = [ticket, self(), :infinity, there, Snex.Offers, :nested, [make_ref()], @options]
        {:offered, _result, holder, handles} = :erpc.call(b, Remote, :serve, serve)
        send(holder, {:drop, [{ticket, 2}, {ticket, 2}, {ticket, 9}, {make_ref(), 1}]})
        eventually(fn -> tracked(b).handles == 3 end)
        Tracker.claim(holder, ticket, handles)
      end)

      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end
  end

  describe "an environment" do
    test "is released from another node, also when it was kept, and more than once", %{b: b, there: there} do
      env = Env.disable_gc(Snex.make_env!(there))
      for _ <- 1..2, do: assert(Handle.release(env) == :ok)
      eventually(fn -> at_rest?([b]) and environments(there) == 0 end)
      eventually(fn -> gone?(env) end)

      # Of which only the external format is left.
      text = elsewhere(fn -> there |> Snex.make_env!() |> Env.disable_gc() |> :erlang.term_to_binary() end)
      eventually(fn -> at_rest?([node(), b]) end)
      assert environments(there) == 1
      assert Handle.release(:erlang.binary_to_term(text)) == :ok
      assert environments(there) == 0
    end

    test "whose node has gone can still be dropped here", %{b: b} do
      {c, control} = Peer.start_node!()
      there = Peer.start_interpreter!(c)
      proxies = Native.resources_count().proxies

      elsewhere(fn ->
        _env = Snex.make_env!(there)
        assert Native.resources_count().proxies == proxies + 1
        Peer.stop_node(control)
      end)

      eventually(fn -> Native.resources_count().proxies == proxies and at_rest?([node(), b]) end)
      refute c in Node.list()
    end
  end

  describe "a connection" do
    test "that is lost has everything dropped, and is not made again for what is dropped later", %{
      b: b,
      there: there
    } do
      proxies = Native.resources_count().proxies

      elsewhere(fn ->
        env = Snex.make_env!(there)
        assert %{handles: 1, trackers: 1} = tracked(b)
        true = Node.disconnect(b)
        Env.hold(env)
      end)

      eventually(fn -> Native.resources_count().proxies == proxies and at_rest?([node()]) end)
      refute b in Node.list()
      assert Node.connect(b)
      eventually(fn -> at_rest?([b]) end)
    end

    test "that takes nothing at the moment does not hold up the tracker", %{b: b, there: there} do
      env = elsewhere(fn -> Snex.make_env!(there) end)

      standing_still(b, fn ->
        chunk = :binary.copy("x", 1_000_000)
        filler = spawn(fn -> for _ <- 1..1_000, do: send({:nobody, b}, chunk) end)
        eventually(fn -> Process.info(filler, :status) == {:status, :suspended} end, 1_000)
        # What its drop does, without a call.
        Native.handle_release(env.handle, there, :environment, env.id)
        eventually(fn -> Tracker.counts().dropped == 1 end, 1_000)
        Process.exit(filler, :kill)
      end)

      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end
  end

  describe "a tracker that is killed" do
    test "on the caller's node has everything dropped that others hold for it; another one starts", %{
      b: b,
      there: there
    } do
      env = Snex.make_env!(there)
      kept = Env.disable_gc(Snex.make_env!(there))
      kill(Tracker.pid())
      eventually(fn -> at_rest?([b]) and environments(there) == 1 end)
      eventually(fn -> gone?(env) end)
      assert Snex.pyeval(kept, "return 1") == {:ok, 1}
      assert Snex.destroy_env(kept) == :ok

      elsewhere(fn -> assert {:ok, 1} = Snex.pyeval(Snex.make_env!(there), "return 1") end)
      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end

    test "on the interpreter's node drops what it holds, and ends the calls that it watches; another one starts",
         %{b: b, there: there} do
      env = Snex.make_env!(there)
      code = "await snex.send(test, 'running')\nawait __import__('asyncio').Event().wait()"
      test = self()
      call = Task.async(fn -> Snex.pyeval(env, code, %{"test" => test}, timeout: :infinity) end)
      assert_receive "running", 60_000
      kill(:erpc.call(b, Tracker, :pid, []))
      assert {:error, %Error{code: :call_failed}} = Task.await(call, 60_000)
      eventually(fn -> environments(there) == 0 and Interpreter.info(there).requests_in_flight == 0 end)
      eventually(fn -> gone?(env) end)
      assert {:ok, _env} = Snex.make_env(there)
      :erlang.garbage_collect()
      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end
  end

  test "there is one on a node, whoever starts it first, and it belongs to nobody" do
    kill(Tracker.pid())
    test = self()

    starters =
      for _ <- 1..50 do
        spawn_monitor(fn ->
          receive do: (:go -> :ok)
          send(test, {:tracker, Tracker.pid()})
        end)
      end

    for {pid, _monitor} <- starters, do: send(pid, :go)
    pids = for _ <- starters, do: receive(do: ({:tracker, pid} -> pid))
    assert [tracker] = Enum.uniq(pids)
    for {pid, monitor} <- starters, do: assert_receive({:DOWN, ^monitor, :process, ^pid, :normal}, 60_000)
    assert Tracker.pid() == tracker
    assert Process.info(tracker, :group_leader) == {:group_leader, Process.whereis(:init)}
    assert Process.info(tracker, :links) == {:links, []}
  end

  test "10,000 environments that are made and dropped over the wire leave nothing behind", %{
    b: b,
    there: there
  } do
    make = fn count ->
      tasks =
        for _ <- 1..8, do: Task.async(fn -> for _ <- 1..div(count, 8), do: Snex.make_env!(there) && nil end)

      Task.await_many(tasks, :infinity)
      eventually(fn -> at_rest?([node(), b]) and environments(there) == 0 end)
    end

    counts = fn ->
      for node <- [node(), b] do
        {:erpc.call(node, Native, :resources_count, []), length(:erpc.call(node, Process, :list, []))}
      end
    end

    make.(80)
    before = counts.()
    make.(10_000)
    # Processes of `:erpc` need a moment.
    eventually(fn -> counts.() == before end, 500, fn -> inspect({before, counts.()}) end)
  end
end
