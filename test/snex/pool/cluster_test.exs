defmodule Snex.Pool.ClusterTest do
  # Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import Snex.Pools

  alias Snex.Peer
  alias Snex.Pool
  alias Snex.Pool.Cluster

  @moduletag timeout: 300_000

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b} do
    Node.connect(b)
    {:ok, name: :"pool_#{System.unique_integer([:positive])}"}
  end

  defp start_here!(name, opts \\ []),
    do: start_pool!([size: 1, scope: :cluster, name: name] ++ opts)

  defp start_there!(node, name, opts \\ []) do
    opts = Keyword.merge([size: 1, scope: :cluster, name: name], opts)
    pool = :erpc.call(node, Snex.Pools, :start_alone!, [opts])
    on_exit(fn -> stop_there(pool) end)
    pool
  end

  defp stop_there(pool) do
    :erpc.call(node(pool), GenServer, :stop, [pool])
  catch
    # It, or its node, is gone already.
    _kind, _reason -> :ok
  end

  # A pool on each of two nodes that know each other.
  defp start_both!(%{name: name, b: b}, here \\ [], there \\ []) do
    pools = {start_here!(name, here), start_there!(b, name, there)}
    await_nodes(name, [node(), b])
    pools
  end

  defp await_nodes(pool, nodes), do: until(pool, &(Enum.sort(Map.keys(&1.nodes)) == Enum.sort(nodes)))

  # Where a call runs that `hold/3` has begun.
  defp place(%{holder: holder}), do: node(holder)

  # As many as there is room for, here and on b.
  defp fill(name, here, there) do
    calls = for _ <- 1..(here + there), do: hold(name, timeout: :infinity)
    assert Enum.frequencies(Enum.map(calls, &(place(&1) == node()))) == %{true => here, false => there}
    calls
  end

  defp let_all_go(calls), do: for(call <- calls, do: assert({:ok, _os_pid} = let_go(call)))

  describe "where a call runs" do
    test "here while there is room, then where there is", %{name: name, b: b} = context do
      {_here, there} = start_both!(context)
      first = hold(name)
      assert place(first) == node()
      second = hold(name)
      assert place(second) == b
      # No node has less to do than this one: it waits here.
      third = begin(name, timeout: :infinity)
      await_waiting(name, 1)
      assert Pool.info(there).waiting == 0
      assert {:ok, _os_pid} = let_go(first)
      third = Map.merge(third, await_running(third))
      assert place(third) == node()
      let_all_go([second, third])
      await_idle(name)
      await_idle(there)
    end

    test "no process is asked as long as there is room here", %{name: name} = context do
      {here, _there} = start_both!(context)
      asked = [here, Process.whereis(Cluster)]
      for pid <- asked, do: :erlang.suspend_process(pid)
      assert Snex.pyeval(name, "return 1", timeout: 60_000) == {:ok, 1}
      for pid <- asked, do: :erlang.resume_process(pid)
    end

    test "of others, the one that has least to do", %{name: name, b: b} = context do
      start_both!(context, [], size: 4)
      {c, _control} = Peer.start_node!()
      start_there!(c, name, size: 2)
      await_nodes(name, [node(), b, c])
      calls = for _ <- 1..7, do: hold(name)

      assert calls |> Enum.map(&place/1) |> Enum.frequencies() == %{node() => 1, b => 4, c => 2}
      # Both have a quarter, or a half, each time.
      assert calls |> Enum.slice(1, 2) |> Enum.map(&place/1) |> Enum.sort() == Enum.sort([b, c])
      let_all_go(calls)
    end

    test "all that a pool can be asked for", %{name: name, b: b} = context do
      start_both!(context)
      busy = hold(name)
      assert {:ok, env} = Snex.make_env(name, %{"x" => 1})
      assert node(Snex.Env.interpreter(env)) == b
      assert Snex.pyeval(env, "x += 1; return x") == {:ok, 2}
      assert Snex.call(name, "abs", [-1]) == {:ok, 1}
      assert name |> Snex.stream("yield from range(3)") |> Enum.to_list() == [0, 1, 2]
      assert Snex.map(name, "abs", [-1, -2]) == [ok: 1, ok: 2]
      let_go(busy)
    end

    test "a call that names a node stays there", %{name: name, b: b} = context do
      {_here, there} = start_both!(context)
      busy = hold({name, b})
      assert place(busy) == b
      waiting = begin({name, b}, timeout: :infinity)
      await_waiting(there, 1)
      let_go(busy)
      waiting = Map.merge(waiting, await_running(waiting))
      assert place(waiting) == b
      let_go(waiting)
    end

    test "functions that Python calls use the pool where they run, even if all are busy",
         %{name: name} = context do
      start_both!(context)
      busy = hold(name)

      answer = fn ->
        Snex.pyeval(name, "return await f()", %{"f" => Snex.Pools.asking(name)}, timeout: 60_000)
      end

      assert answer.() == {:ok, 42}
      let_go(busy)
    end
  end

  describe "environments and objects" do
    test "a call with an object in its arguments runs where the object is", %{name: name, b: b} = context do
      start_both!(context, [], size: 2)
      {:ok, here} = Snex.call(name, "list", [[1]], returns: :object)
      busy = hold(name)
      {:ok, there} = Snex.call(name, "list", [[1, 2]], returns: :object)
      assert node(there.interpreter) == b

      # From here, where there is room or not, to there.
      assert Snex.call(name, "len", [there]) == {:ok, 2}
      let_go(busy)
      await_idle(name)
      assert Snex.call(name, "len", [there]) == {:ok, 2}

      # And back, of a call that would have gone there.
      busy = hold(name)
      assert Snex.call(name, "len", [here]) == {:ok, 1}
      let_go(busy)
      assert_raise ArgumentError, ~r/cannot be used in/, fn -> Snex.call(name, "zip", [here, there]) end
    end

    test "an object of a node that is no part of it is refused", %{name: name, b: b} do
      start_here!(name)
      other = start_there!(b, :"#{name}_other")
      {:ok, object} = Snex.call(other, "list", [[1]], returns: :object)

      assert_raise ArgumentError, ~r/a pool that it does not belong to/, fn ->
        Snex.call(name, "len", [object])
      end
    end
  end

  describe "the bounds of waiting" do
    test "a queue that is full here does not keep a call from one that is not",
         %{name: name, b: b} = context do
      {_here, there} = start_both!(context, [queue: [limit: 0]], queue: [limit: 1])
      calls = fill(name, 1, 1)
      waiting = begin(name, timeout: :infinity)
      await_waiting(there, 1)
      # All are full.
      assert {:error, %Error{code: :overloaded, reason: reason}} = Snex.pyeval(name, "return 1")
      assert reason =~ "as many as the option :queue allows"
      let_all_go(calls)
      waiting = Map.merge(waiting, await_running(waiting))
      assert place(waiting) == b
      let_go(waiting)
    end

    test "the timeout of the queue here counts there as well, and that of the call",
         %{name: name} = context do
      {_here, there} = start_both!(context, [queue: [limit: 0, timeout: 100]], queue: [timeout: :infinity])
      calls = fill(name, 1, 1)
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(name, "return 1", timeout: 60_000)
      await_waiting(there, 0)
      let_all_go(calls)
    end

    test "one that waits there no longer waits when its process is gone", %{name: name} = context do
      {_here, there} = start_both!(context, queue: [limit: 0])
      calls = fill(name, 1, 1)
      waiting = spawn(fn -> Snex.pyeval(name, "return 1", timeout: :infinity) end)
      await_waiting(there, 1)
      Process.exit(waiting, :kill)
      await_waiting(there, 0)
      let_all_go(calls)
    end

    test "a pool that is drained sends its calls elsewhere, and gets none", %{name: name, b: b} = context do
      {here, there} = start_both!(context)
      assert Pool.drain(here) == :ok
      call = hold(name)
      assert place(call) == b
      assert {:ok, _os_pid} = let_go(call)
      await_idle(there)
      assert Pool.drain(there) == :ok
      assert {:error, %Error{code: :call_failed, reason: reason}} = Snex.pyeval(name, "return 1")
      assert reason =~ "drained"
    end
  end

  describe "nodes" do
    test "come and go", %{name: name, b: b} do
      start_here!(name)
      await_nodes(name, [node()])
      there = start_there!(b, name)
      await_nodes(name, [node(), b])
      assert Pool.info(name).nodes == %{node() => Process.whereis(name), b => there}
      stop_there(there)
      await_nodes(name, [node()])
      busy = hold(name)
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(name, "return 1", timeout: 50)
      let_go(busy)
    end

    test "are cut off and come back", %{name: name, b: b} = context do
      start_both!(context)
      calls = fill(name, 1, 1)
      [there] = Enum.filter(calls, &(place(&1) == b))
      [here] = calls -- [there]
      true = :erlang.disconnect_node(b)
      await_nodes(name, [node()])
      # Only what ran there is lost.
      assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^b}}} = Task.await(there.task, 60_000)
      assert {:error, %Error{code: :overloaded}} = Snex.pyeval(name, "return 1", timeout: 50)

      true = Node.connect(b)
      await_nodes(name, [node(), b])
      eventually(fn -> match?(%{members: [%{calls_running: 0}]}, Pool.info({name, b})) end)
      again = hold(name)
      assert place(again) == b
      let_all_go([here, again])
    end

    test "die, and only what runs there is lost", %{name: name} do
      {c, control} = Peer.start_node!()
      start_here!(name)
      there = start_there!(c, name, size: 2)
      await_nodes(name, [node(), c])
      here = hold(name)
      lost = hold(name)
      retried = hold(name, retry: 1, timeout: :infinity)
      assert {place(here), place(lost), place(retried)} == {node(), c, c}
      # One call waits here, so that the next one has less to wait for there.
      first = begin(name, timeout: :infinity)
      await_waiting(name, 1)
      second = begin(name, timeout: :infinity)
      await_waiting(there, 1)
      Peer.stop_node(control)

      assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^c}}} = Task.await(lost.task, 60_000)
      assert {:ok, _os_pid} = let_go(here)
      finish([first, second, retried])
      await_nodes(name, [node()])
    end

    test "an interpreter that crashes there: the call runs once more, here or there, and not twice",
         %{name: name} = context do
      start_both!(context)
      here = hold(name)
      once = hold(name, retry: 1, timeout: :infinity)
      System.cmd("kill", ["-KILL", "#{once.os_pid}"])
      again = Map.merge(once, await_running(once))
      assert again.os_pid != once.os_pid
      System.cmd("kill", ["-KILL", "#{again.os_pid}"])
      assert {:error, %Error{code: :interpreter_exited}} = Task.await(once.task, 60_000)
      let_go(here)
    end
  end

  describe "what belongs together" do
    test "sizes and queues may differ, and each pool keeps its own", %{name: name, b: b} = context do
      {_here, there} = start_both!(context, [], size: 3, concurrency: 2, queue: [limit: 0])
      calls = fill(name, 1, 6)
      waiting = begin(name, timeout: :infinity)
      await_waiting(name, 1)
      assert Pool.info(there).waiting == 0
      assert Pool.info({name, b}).concurrency == 2
      let_all_go(calls)
      waiting = Map.merge(waiting, await_running(waiting))
      let_go(waiting)
    end

    test "not a pool that is for its own node, or has other interpreters", %{name: name, b: b} do
      start_here!(name)
      start_there!(b, name, scope: :node)
      {c, _control} = Peer.start_node!()
      start_there!(c, name, interpreter: Snex.Pools.Other)
      known = :"#{name}_known"
      # What comes later than those is known.
      start_pool!(size: 1, scope: :cluster, name: known)
      start_there!(b, known)
      start_there!(c, known)
      await_nodes(known, [node(), b, c])
      await_nodes(name, [node()])
    end

    test "pools find each other again when the process is killed that knows them",
         %{name: name, b: b} = context do
      start_both!(context)
      Process.exit(Process.whereis(Cluster), :kill)
      await_nodes(name, [node(), b])
      until({name, b}, &(map_size(&1.nodes) == 2))
    end

    test "a name that is one for all nodes cannot be shared" do
      for name <- [nil, {:global, :a}] do
        assert_raise ArgumentError, ~r/option :scope cannot be :cluster with the :name/, fn ->
          Pool.start_link(size: 1, scope: :cluster, name: name)
        end
      end

      assert_raise ArgumentError, ~r/option :scope cannot be :galaxy/, fn ->
        Pool.start_link(scope: :galaxy)
      end
    end
  end

  # Lets calls go as they begin to run, in whatever order, until all have returned.
  defp finish(calls) do
    for _call <- calls do
      assert_receive {_reference, :running, holder, _os_pid}, 60_000
      send(holder, :go)
    end

    for call <- calls, do: assert({:ok, _os_pid} = Task.await(call.task, 60_000))
  end
end
