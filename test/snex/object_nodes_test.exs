defmodule Snex.ObjectNodesTest do
  # Objects of interpreters on other nodes. Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import Snex.Peer, only: [at_rest?: 1]

  alias Snex.Object
  alias Snex.Peer

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b} do
    script =
      marks() <>
        "\ndef left():\n  import gc; from snex._eval import objects\n  gc.collect()\n  return len(objects.table), len(marks)"

    {:ok, there: Peer.start_interpreter!(b, init_script: script), script: script}
  end

  defp left(interpreter), do: Snex.call!(interpreter, "left", [], timeout: 60_000)

  defp assert_rest(there, b) do
    eventually(fn -> left(there) == {0, 0} end, 1_000, fn -> inspect(left(there)) end)
    eventually(fn -> at_rest?([node(), b]) end, 1_000)
  end

  test "are made, asked and released from here", %{there: there, b: b} do
    object = Snex.call!(there, "mark")
    assert %Object{interpreter: ^there, type: "Mark"} = object
    assert inspect(object) =~ "#Snex.Object<Mark "
    assert Object.put(object, "x", [1, object]) == :ok
    assert {:ok, [1, %Object{id: id}]} = Object.get(object, "x")
    assert id == object.id
    assert Snex.pyeval(there, "return x is y[0]", %{"x" => object, "y" => {object}}) == {:ok, true}
    env = Snex.make_env!(there, %{"mine" => object})
    assert Object.call(object, "__eq__", [Snex.get!(env, "mine")]) == {:ok, true}
    assert Object.value(Snex.call!(there, "list", [[1]], returns: :object)) == {:ok, [1]}
    assert {:error, %Error{exception: %{type: "AttributeError"}}} = Object.get(object, "nothing")
    assert Object.put(object, "x", nil) == :ok
    assert Snex.pyeval(env, "del mine") == {:ok, nil}

    other = Snex.call!(there, "mark")
    assert Object.release(other) == :ok
    assert Object.release(other) == :ok
    assert {:error, %Error{code: :object_not_found}} = Object.repr(other)
    assert {:error, %Error{code: :object_not_found}} = Snex.call(there, "repr", [[other]])
    assert {:ok, _} = Object.repr(object)
    Snex.destroy_env(env)
    # What this process had.
    object = nil
    env = nil
    :erlang.garbage_collect()
    assert {object, env} == {nil, nil}
    assert_rest(there, b)
  end

  test "are dropped when this node does not refer to them any more", %{there: there, b: b} do
    apart(fn ->
      objects = for _ <- 1..50, do: Snex.call!(there, "mark")
      assert left(there) == {50, 50}

      assert {:ok, [[%Object{}, %{}] | _]} =
               Snex.pyeval(there, "x = mark(); return [[x, {x: x}]] * 20", returns: :auto)

      objects
    end)

    assert_rest(there, b)
  end

  test "stay after disable_gc/1 until they are released, from any node", %{there: there, b: b} do
    kept =
      Task.await(Task.async(fn -> %{Object.disable_gc(Snex.call!(there, "mark")) | handle: make_ref()} end))

    apart(fn -> for _ <- 1..10, do: Snex.call!(there, "mark") end)
    eventually(fn -> left(there) == {1, 1} end)
    assert {:ok, _} = Object.repr(kept)
    assert :erpc.call(b, Object, :release, [kept]) == :ok
    assert_rest(there, b)
    assert {:error, %Error{code: :object_not_found}} = Object.repr(kept)
  end

  test "can only be kept by the node that has received them, and are used from every node", %{
    there: there,
    b: b
  } do
    object = Snex.call!(there, "mark")
    # There it is no handle of that node.
    assert_raise ArgumentError, ~r/an object can only be kept by the node that has received it/, fn ->
      try do
        :erpc.call(b, Object, :disable_gc, [object])
      rescue
        error in ErlangError -> raise elem(error.original, 1)
      end
    end

    assert {:ok, "<" <> _} = :erpc.call(b, Object, :repr, [object])
    assert {:ok, true} = :erpc.call(b, Object, :call, [object, "__eq__", [object]])
    assert Object.call(object, "__eq__", [object]) == {:ok, true}
  end

  test "of a caller that is killed, at any moment, are dropped", %{there: there, b: b} do
    for round <- 1..200 do
      caller = spawn(fn -> Snex.pyeval(there, "return [mark() for _ in range(5)]", %{}, returns: :auto) end)
      for _ <- 1..rem(round * 37, 400)//1, do: :erlang.yield()
      if rem(round, 4) == 0, do: Snex.call!(there, "len", ["x"], timeout: 60_000)
      Process.exit(caller, :kill)
    end

    assert_rest(there, b)
  end

  test "of an answer that comes too late are dropped", %{there: there, b: b} do
    code = "import asyncio; await asyncio.sleep(0.2); return [mark(), mark()]"

    for on_timeout <- [:leave, :cancel] do
      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(there, code, returns: :auto, timeout: 100, on_timeout: on_timeout)
    end

    eventually(fn -> Interpreter.info(there).requests_in_flight == 0 end)
    assert_rest(there, b)
  end

  test "are dropped when the node of their holder goes", %{there: there, b: b} do
    {c, control} = Peer.start_node!()
    {{:ok, %Object{} = object}, _keeper} = Peer.run(c, Snex, :call, [there, "mark"])
    {{:ok, [_, _]}, _keeper} = Peer.run(c, Snex, :call, [there, "list", [[object, object]]])
    eventually(fn -> left(there) == {1, 1} end)
    assert {:ok, "<" <> _} = Object.repr(object)
    Peer.stop_node(control)
    assert_rest(there, b)
    assert {:error, %Error{code: :object_not_found}} = Object.repr(object)
  end

  test "are gone with their node: an error of the call" do
    {c, control} = Peer.start_node!()
    there = Peer.start_interpreter!(c)
    object = Snex.call!(there, "object")
    Peer.stop_node(control)
    assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^c}}} = Object.repr(object)
    assert Object.release(object) == :ok
    assert inspect(object) =~ "#Snex.Object<object "
  end

  test "cannot be used in another interpreter, and are copied from node to node", %{there: there, b: b} do
    here = start_interpreter!()
    object = Snex.call!(there, "fractions.Fraction", [1, 2], returns: :object)
    error = assert_raise ArgumentError, fn -> Snex.call(here, "str", [object]) end
    assert error.message =~ inspect(there) and error.message =~ inspect(here)
    assert_raise ArgumentError, fn -> Snex.call(there, "str", [Snex.call!(here, "object")]) end

    assert {:ok, %Object{interpreter: ^here} = copy} = Object.copy(object, here)
    assert Object.str(copy) == {:ok, "1/2"}
    assert {:ok, %Object{interpreter: ^there} = back} = Object.copy(copy, there)
    assert Object.str(back) == {:ok, "1/2"}
    assert {:ok, %Object{interpreter: ^there}} = Object.copy(back, Snex.make_env!(there))
    assert :erpc.call(b, Object, :str, [back]) == {:ok, "1/2"}
  end

  test "in a message to another node are dropped, unless the node of the interpreter keeps them", %{
    there: there,
    b: b
  } do
    code =
      "await snex.send(to, snex.keep(mark())); return (await Elixir.List.wrap(snex.keep(mark())))[0].__class__.__name__"

    assert Snex.pyeval(there, code, %{"to" => self()}) == {:ok, "Mark"}
    # Its references are counted over there, where nothing refers to it any more.
    assert_receive %Object{type: "Mark", interpreter: ^there} = object, 60_000
    assert node(object.handle) == b
    assert_rest(there, b)
    assert {:error, %Error{code: :object_not_found}} = Object.repr(object)
    assert Object.release(object) == :ok
  end
end
