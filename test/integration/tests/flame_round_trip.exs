if Code.ensure_loaded?(FLAME) do
  defmodule Snex.Integration.FlameTest do
    use ExUnit.Case

    alias Snex.Peer

    # The helpers of Snex's own tests.
    @helpers for file <- ["process_tree", "case", "peer"],
                 helper <- Code.require_file("../../support/#{file}.ex", __DIR__),
                 do: helper

    setup_all {Peer, :two_nodes}

    setup_all %{b: b} do
      for {module, code} <- @helpers, do: :erpc.call(b, :code, :load_binary, [module, ~c"nofile", code])
      :ok
    end

    test "FLAME's protocol has Snex's implementations, as Mix has consolidated it" do
      assert Protocol.consolidated?(FLAME.Trackable)
      {:consolidated, modules} = FLAME.Trackable.__protocol__(:impls)
      assert [Snex.Env, Snex.Object] -- modules == []
    end

    test "FLAME finds environments and objects wherever they are in a result", %{b: b} do
      there = Peer.start_interpreter!(b)
      {env, _keeper} = Peer.run(b, Snex, :make_env!, [there, %{"x" => 1}])
      {object, _keeper} = Peer.run(b, Snex, :call!, [there, "list", [[1, 2]], [returns: :object]])

      assert {{:ok, %{env: env, more: [object]}}, pids} =
               FLAME.track_resources({:ok, %{env: env, more: [object]}}, [], b)

      assert length(pids) == 2
      assert Enum.all?(pids, &(node(&1) == b))
      assert Snex.pyeval(env, "return x") == {:ok, 1}
      assert Snex.Object.value(object) == {:ok, [1, 2]}
    end

    test "a call with FLAME's own backend, which runs it on this node" do
      start_supervised!({FLAME.Pool, name: __MODULE__.Runner, min: 0, max: 1, max_concurrency: 1})
      py = start_supervised!(Snex.Interpreter)

      env =
        FLAME.call(__MODULE__.Runner, fn -> Snex.make_env!(py, %{"x" => 2}) end, track_resources: true)

      assert Snex.pyeval(env, "return x") == {:ok, 2}
    end
  end
end
