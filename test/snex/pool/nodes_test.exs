defmodule Snex.Pool.NodesTest do
  # Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import Snex.Pools, only: [until: 2]

  alias Snex.Peer

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b} do
    name = :"pool_#{System.unique_integer([:positive])}"
    there = :erpc.call(b, Snex.Pools, :start_alone!, [[size: 1, name: name]])
    on_exit(fn -> :erpc.call(b, Supervisor, :stop, [there]) end)
    {:ok, there: there, name: name}
  end

  test "a pool on another node chooses there", %{there: there, name: name, b: b} do
    for where <- [there, {name, b}] do
      assert Snex.pyeval(where, "return x + 1", %{"x" => 1}) == {:ok, 2}
      assert Snex.call(where, "abs", [-1]) == {:ok, 1}
      assert where |> Snex.stream("yield from range(3)") |> Enum.to_list() == [0, 1, 2]
      assert {:ok, env} = Snex.make_env(where, %{"x" => 1})
      assert node(Snex.Env.interpreter(env)) == b
      assert Snex.get(env, "x") == {:ok, 1}
      assert {:ok, object} = Snex.call(where, "list", [[1]], returns: :object)
      assert Snex.call(where, "len", [object]) == {:ok, 1}
    end
  end

  test "one who waits there, and whose process goes here, gives its place to the next", %{there: there} do
    running =
      Task.async(fn ->
        Snex.pyeval(there, "import asyncio; await asyncio.Event().wait()", timeout: :infinity)
      end)

    until(there, &match?([%{calls_running: 1}], &1.members))
    dies = spawn(fn -> Snex.pyeval(there, "return 1") end)
    until(there, &(&1.waiting == 1))
    Process.exit(dies, :kill)
    until(there, &(&1.waiting == 0))
    waiting = Task.async(fn -> Snex.pyeval(there, "return 1", timeout: 60_000) end)
    until(there, &(&1.waiting == 1))
    assert {:error, %Error{code: :overloaded}} = Snex.pyeval(there, "return 1", timeout: 20)
    Task.shutdown(running, :brutal_kill)
    assert Task.await(waiting, 60_000) == {:ok, 1}
  end

  test "what has gone with an interpreter says so", %{there: there} do
    env = Snex.make_env!(there)
    assert :ok = Snex.Pool.restart(there)
    until(there, &match?([%{status: :running}], &1.members))
    assert {:error, %Error{code: :env_not_found, reason: reason}} = Snex.pyeval(env, "return 1")
    assert reason =~ "which was replaced by Snex.Pool.restart/1"
  end

  test "an interpreter of a pool elsewhere cannot be checked out", %{there: there} do
    assert_raise ArgumentError, ~r/out of a pool on this node/, fn -> Snex.Pool.checkout(there, & &1) end
  end
end
