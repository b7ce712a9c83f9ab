defmodule Snex.HandlesTest do
  # Handles are given back, however they are lost. Not async: it counts what lives in this VM.
  use Snex.Case

  alias Snex.Native
  alias Snex.Object

  @moduletag timeout: 600_000

  # `left()`: how many objects the VM has handles of, and how many of ours live.
  @script """
  import asyncio, gc, threading, weakref
  from snex._eval import objects

  class Thing:
      pass

  made = weakref.WeakSet()

  def thing():
      new = Thing()
      made.add(new)
      return new

  def things(count):
      return [thing() for _ in range(count)]

  def left():
      gc.collect()
      return len(objects.table), len(made)
  """

  setup do
    {:ok, inp: start_interpreter!(init_script: @script)}
  end

  defp left(inp), do: Snex.call!(inp, "left", [], timeout: 60_000)

  # Nothing is left, on either side.
  defp assert_rest(inp) do
    eventually(fn -> left(inp) == {0, 0} end, 1_000, fn -> "left: #{inspect(left(inp))}" end)

    rest? = fn ->
      match?(%{objects: 0, proxies: 0, alive: 0, pending: 0}, Native.resources_count()) and
        Interpreter.info(inp).objects == 0
    end

    eventually(rest?, 1_000, fn -> inspect(Native.resources_count()) end)
  end

  test "are given back when nobody refers to them any more, without any call in between", %{inp: inp} do
    apart(fn -> for _ <- 1..100, do: assert(%Object{} = Snex.call!(inp, "thing")) end)
    # Only the VM is asked.
    eventually(fn -> match?(%{objects: 0, alive: 0}, Native.resources_count()) end, 1_000)
    assert_rest(inp)
  end

  test "stay while anyone refers to them, and after disable_gc/1 until release/1", %{inp: inp} do
    object = Snex.call!(inp, "thing")

    kept =
      Task.await(Task.async(fn -> %{Object.disable_gc(Snex.call!(inp, "thing")) | handle: make_ref()} end))

    apart(fn -> for _ <- 1..10, do: Snex.call!(inp, "thing") end)
    eventually(fn -> left(inp) == {2, 2} end)
    assert Interpreter.info(inp).objects == 2
    assert {:ok, "<" <> _} = Object.repr(kept)
    assert Object.release(kept) == :ok
    eventually(fn -> left(inp) == {1, 1} end)
    assert {:error, %Error{code: :object_not_found}} = Object.repr(kept)
    assert {:ok, _} = Object.repr(object)
    assert Object.release(object) == :ok
    assert left(inp) == {0, 0}
  end

  test "100,000 in one answer are given back at once", %{inp: inp} do
    apart(fn ->
      objects = Snex.call!(inp, "things", [100_000], timeout: 60_000)
      assert length(Enum.uniq_by(objects, & &1.id)) == 100_000
      assert Interpreter.info(inp).objects == 100_000
    end)

    assert_rest(inp)

    # And of one object.
    apart(fn ->
      objects = Snex.pyeval!(inp, "return [thing()] * 100_000", returns: :auto, timeout: 60_000)
      assert [_id] = Enum.uniq(for object <- objects, do: object.id)
      assert Interpreter.info(inp).objects == 1
    end)

    assert_rest(inp)
  end

  test "of an answer that comes too late", %{inp: inp} do
    for on_timeout <- [:leave, :cancel], run <- [:loop, :thread] do
      env = Snex.make_env!(inp, %{"test" => self()})
      Snex.pyeval!(env, "gate = threading.Event(); agate = asyncio.Event()")

      code =
        if run == :loop,
          do: "await agate.wait(); return things(10)",
          else: "gate.wait(); return things(10)"

      apart(fn ->
        opts = [timeout: 30, on_timeout: on_timeout, run: run, returns: :auto]
        assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(env, code, opts)
      end)

      Snex.pyeval!(env, "gate.set(); agate.set()", timeout: 60_000)
      Snex.destroy_env(env)
      assert_rest(inp)
    end
  end

  test "of an answer whose caller is killed, at any moment", %{inp: inp} do
    for round <- 1..300 do
      caller = spawn(fn -> Snex.call(inp, "things", [20], timeout: :infinity) end)
      # Anywhere between its first step and its last.
      for _ <- 1..rem(round * 7, 60)//1, do: :erlang.yield()
      if rem(round, 3) == 0, do: Snex.call!(inp, "len", ["x"], timeout: 60_000)
      Process.exit(caller, :kill)
    end

    assert_rest(inp)
  end

  test "of an answer that its caller never reads", %{inp: inp} do
    test = self()

    invoke = %{
      kind: :invoke,
      environment: nil,
      root: nil,
      path: "things",
      args: [50],
      kwargs: %{},
      run: :loop,
      returns: :auto,
      callers: nil,
      time: nil,
      traceparent: nil,
      demand: nil,
      slot: nil
    }

    {pid, monitor} =
      spawn_monitor(fn ->
        for _ <- 1..20,
            do: {:ok, _} = Native.request_invoke(inp, make_ref(), invoke, {nil, nil, nil, [], nil, nil})

        send(test, :asked)
        receive do: (:end -> :ok)
      end)

    assert_receive :asked, 60_000
    eventually(fn -> Process.info(pid, :message_queue_len) == {:message_queue_len, 20} end)
    assert {1_000, 1_000} = left(inp)
    assert %{objects: 1_000} = Native.resources_count()
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 60_000
    assert_rest(inp)
  end

  test "of a call that fails after they were made are none", %{inp: inp} do
    apart(fn ->
      for code <- [
            "return [snex.keep(thing()) for _ in range(100)] + [thing()]",
            "x = [snex.keep(thing())]; x.append(x); return x",
            "return {snex.keep(thing()): 1, 'x': '\\udc80'}",
            "return [snex.keep(thing()), {1: 1, 1.5: object()}]",
            "await snex.send(snex.Atom('nobody'), [snex.keep(thing()), thing()])",
            "return await Elixir.Enum.sum([snex.keep(thing()), thing()])"
          ] do
        assert {:error, %Error{code: :python_runtime_error}} = Snex.pyeval(inp, code)
        assert %{objects: 0} = Native.resources_count()
      end

      code = "x = [thing(), thing()]; x.append(x); return x"
      assert {:error, %Error{exception: %{type: "ValueError"}}} = Snex.pyeval(inp, code, returns: :auto)
    end)

    assert_rest(inp)
  end

  test "that cannot be decoded, because of an atom, are given back" do
    inp = start_interpreter!(init_script: @script, atoms: :existing)

    apart(fn ->
      atom = "never_made_before_#{System.unique_integer([:positive])}"
      code = "return [thing(), snex.Atom(name)]"

      assert {:error, %Error{code: :internal_error}} =
               Snex.pyeval(inp, code, %{"name" => atom}, returns: :auto)
    end)

    assert_rest(inp)
  end

  test "in messages that nobody wants", %{inp: inp} do
    {dead, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^dead, _}, 60_000

    for code <- [
          "await snex.send(to, [snex.keep(thing()) for _ in range(10)])",
          "await snex.send(snex.Atom('nobody_of_this_name'), snex.keep(thing()))",
          "await snex.cast('Elixir.Function', 'identity', [snex.keep(thing())])",
          "await snex.call('Elixir.Function', 'identity', [snex.keep(thing())])",
          "try: await Elixir.Enum.sum(snex.keep(thing()))\nexcept snex.ElixirError: pass"
        ] do
      assert Snex.pyeval(inp, code, %{"to" => dead}) == {:ok, nil}
    end

    assert_rest(inp)
  end

  test "in messages that are refused" do
    inp = start_interpreter!(init_script: @script, allow_send: :none, allow: :none)
    code = "await snex.send(snex.Atom('nobody_of_this_name'), snex.keep(thing()))"
    assert Snex.pyeval(inp, code) == {:ok, nil}
    code = "await Elixir.Function.identity(snex.keep(thing()))"
    assert {:error, %Error{exception: %{type: "ElixirError"}}} = Snex.pyeval(inp, code)
    assert Snex.pyeval(inp, "await snex.cast('Elixir.Enum', 'sum', [snex.keep(thing())])") == {:ok, nil}
    assert_rest(inp)
  end

  test "in a message to a process that outlives the interpreter", %{inp: inp} do
    test = self()

    holder =
      spawn_link(fn ->
        receive do: (%Object{} = object -> send(test, {:has, object.id}))
        receive do: (:end -> :ok)
      end)

    assert Snex.pyeval(inp, "await snex.send(to, snex.keep(thing()))", %{"to" => holder}) == {:ok, nil}
    assert_receive {:has, id}, 60_000
    # It keeps what it has not dropped from its heap, whatever becomes of the others.
    assert left(inp) == {1, 1}
    assert is_integer(id)
    Interpreter.stop(inp)
    eventually(fn -> match?(%{objects: 1, alive: 0}, Native.resources_count()) end)
    send(holder, :end)
    eventually(fn -> match?(%{objects: 0}, Native.resources_count()) end)
  end

  test "of objects and environments that refer to each other", %{inp: inp} do
    apart(fn ->
      for _ <- 1..20 do
        env = Snex.make_env!(inp)

        object =
          Snex.pyeval!(env, "t = thing(); t.back = lambda: t; t.names = globals(); return t", returns: :auto)

        Snex.pyeval!(env, "u = x; x.env = globals()", %{"x" => object})
        {env, object}
      end
    end)

    assert_rest(inp)
    eventually(fn -> Interpreter.info(inp).environments == 0 end)

    # An object keeps what it refers to, not its environment.
    apart(fn ->
      env = Snex.make_env!(inp)
      object = Snex.pyeval!(env, "t = thing(); t.names = globals(); return t", returns: :auto)
      Snex.destroy_env(env)
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
      assert {:ok, %Object{type: "dict"}} = Object.get(object, "names", returns: :object)
      assert {_names, 1} = left(inp)
      object
    end)

    assert_rest(inp)
  end

  test "that a destructor hands out are given back", %{inp: inp} do
    env = Snex.make_env!(inp, %{"test" => self()})

    Snex.pyeval!(env, """
    class Last(Thing):
        def __del__(self):
            task = asyncio.ensure_future(snex.send(test, [snex.keep(thing()), snex.keep(thing())]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    tasks = set()
    """)

    apart(fn -> for _ <- 1..50, do: assert(%Object{} = Snex.call!(env, "Last")) end)

    apart_of_messages = fn -> for _ <- 1..50, do: assert_receive([%Object{}, %Object{}], 60_000) end
    apart_of_messages.()
    :erlang.garbage_collect()
    Snex.destroy_env(env)
    assert_rest(inp)
  end

  test "that two threads hand out at once, 300 times", %{inp: inp} do
    env = Snex.make_env!(inp, %{"test" => self()})

    Snex.pyeval!(env, """
    shared = [thing() for _ in range(20)]
    def hand_out():
        return shared + things(20)
    """)

    apart(fn ->
      1..300
      |> Task.async_stream(
        fn n ->
          Snex.call(env, "hand_out", [], run: if(rem(n, 4) == 0, do: :loop, else: :thread), timeout: 60_000)
        end,
        max_concurrency: 4,
        timeout: 120_000
      )
      |> Enum.each(fn {:ok, {:ok, objects}} ->
        assert length(objects) == 40
        # Some of the shared ones are given back by others meanwhile.
        assert {:ok, true} =
                 Snex.pyeval(env, "return x is shared[3]", %{"x" => Enum.at(objects, 3)}, timeout: 60_000)
      end)
    end)

    Snex.destroy_env(env)
    assert_rest(inp)
  end

  test "that are handed out and given back at the same time, 300 times", %{inp: inp} do
    env = Snex.make_env!(inp)
    Snex.pyeval!(env, "mine = thing()")

    callers =
      for _ <- 1..3 do
        Task.async(fn ->
          for _ <- 1..300 do
            object = Snex.get!(env, "mine", timeout: 60_000)
            assert {:ok, true} = Snex.pyeval(env, "return x is mine", %{"x" => object}, timeout: 60_000)
            Object.release(object)
          end

          nil
        end)
      end

    Task.await_many(callers, :infinity)
    assert_rest(inp)
  end
end
