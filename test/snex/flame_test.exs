defmodule Snex.FlameTest do
  # Not async: this VM becomes a node meanwhile.
  use Snex.Case

  alias Snex.Peer
  alias Snex.Remote.Keeper

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}
  setup %{b: b}, do: {:ok, there: Peer.start_interpreter!(b, init_script: marks())}

  # As FLAME's own, in which Snex's implementations are found by their names: it is not consolidated.
  setup do
    Code.compile_string("""
    defprotocol FLAME.Trackable do
      @fallback_to_any true
      def track(data, acc, node)
    end

    defimpl FLAME.Trackable, for: Any do
      def track(data, acc, _node), do: {data, acc}
    end
    """)

    on_exit(fn ->
      for module <- [FLAME.Trackable, FLAME.Trackable.Any] do
        :code.purge(module)
        :code.delete(module)
      end
    end)
  end

  # By its name, which this module is compiled without.
  defp track(data, pids, node), do: apply(FLAME.Trackable, :track, [data, pids, node])

  # As a runner does: made there by a process that holds on until `track/3` has returned.
  defp from_runner(there, kind, fun) do
    {made, keeper} = Peer.run(node(there), Snex.Pools, :marked!, [there, kind])
    result = fun.(made)
    Process.exit(keeper, :kill)
    result
  end

  defp marks_left(there), do: Snex.pyeval!(there, "import gc; gc.collect(); return len(marks)")

  defp await_end(monitor), do: assert_receive({:DOWN, ^monitor, :process, _pid, _reason}, 60_000)

  for kind <- [:env, :object] do
    test "an #{kind} lives, and so does the process to wait for, as long as anything here refers to it", %{
      there: there,
      b: b
    } do
      monitor =
        Task.async(fn ->
          {thing, [pid, :before]} = from_runner(there, unquote(kind), &track(&1, [:before], b))
          assert node(pid) == b and node(thing.handle) == node()
          assert marks_left(there) == 1
          if is_struct(thing, Snex.Env), do: assert({:ok, _} = Snex.pyeval(thing, "return str(mine)"))
          pid
        end)
        |> Task.await(60_000)
        |> Process.monitor()

      await_end(monitor)
      eventually(fn -> marks_left(there) == 0 end)
    end

    test "the process for an #{kind} ends with the interpreter", %{there: there, b: b} do
      {thing, [pid]} = from_runner(there, unquote(kind), &track(&1, [], b))
      monitor = Process.monitor(pid)
      Interpreter.stop(there)
      await_end(monitor)
      assert is_reference(thing.handle)
    end
  end

  test "what belongs to this node is not tracked, nor is anything else" do
    env = start_interpreter!() |> Snex.make_env!()
    assert track(env, [], node()) == {env, []}
    assert track(%Error{code: :overloaded}, [], node()) == {%Error{code: :overloaded}, []}
  end

  test "a process that is gone before it has claimed a handle leaves nothing", %{there: there, b: b} do
    caller = spawn(fn -> Process.sleep(:infinity) end)
    {env, runner} = Peer.run(b, Snex, :make_env!, [there])
    {:ok, keeper} = :erpc.call(b, Keeper, :start, [env, make_ref(), caller])
    monitor = Process.monitor(keeper)
    Process.exit(runner, :kill)
    Process.exit(caller, :kill)
    await_end(monitor)
  end

  test "Mix finds the implementations" do
    path = Application.app_dir(:snex, "ebin")
    assert FLAME.Trackable |> Protocol.extract_impls([path]) |> Enum.sort() == [Snex.Env, Snex.Object]
  end
end
