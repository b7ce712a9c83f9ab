defmodule Snex.NodesTest do
  # Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO
  import Snex.Peer, only: [at_rest?: 1, tracked: 1]

  alias Snex.Env
  alias Snex.Peer

  # Runs until it is cancelled.
  @endless """
  import asyncio
  try:
      await snex.send(test, "running")
      await asyncio.Event().wait()
  finally:
      await snex.send(test, "cancelled")
  """

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b}, do: {:ok, there: Peer.start_interpreter!(b, init_script: marks())}

  defp marked!(interpreter) do
    env = Snex.make_env!(interpreter)
    nil = Snex.pyeval!(env, "mine = mark()")
    env
  end

  defp marks(interpreter), do: Snex.pyeval!(interpreter, "return len(marks)")

  # In a process of its own: nothing in this one refers to what it made.
  defp elsewhere(fun), do: Task.await(Task.async(fun), :infinity)

  defp in_flight(interpreter), do: Interpreter.info(interpreter).requests_in_flight

  describe "an interpreter on another node" do
    test "functions run on its node, on its event loop as well, and may use it", %{there: there, b: b} do
      # One whose module is there.
      assert Snex.pyeval(there, "return f()", %{"f" => Serde.callback(&Node.self/0)}) == {:ok, b}
      assert Snex.pyeval(there, "return await f()", %{"f" => &Node.self/0}) == {:ok, b}

      text =
        capture_io(fn ->
          {:ok, :ok} = Snex.pyeval(there, "return f('hello')", %{"f" => Serde.callback(&IO.puts/1)})
        end)

      assert text == "hello\n"

      # One whose code travels with it, for it is made of expressions.
      {nested, _binding} =
        Code.eval_string("fn n -> {node(), Snex.pyeval!(there, \"return n + 1\", %{\"n\" => n})} end",
          there: there
        )

      assert Snex.pyeval(there, "return f(1)", %{"f" => Serde.callback(nested)}) == {:ok, {b, 2}}
      # And one that is nowhere there.
      assert {:error, error} = Snex.pyeval(there, "return f()", %{"f" => Serde.callback(fn -> there end)})
      assert error.exception.type == "ElixirError"
    end

    test "run: :thread works there as well, and is cancelled there", %{there: there} do
      code = """
      import time
      print("from a thread")
      try:
          snex.send_sync(test, "running")
          while wait: time.sleep(0.001)
      finally:
          snex.send_sync(test, "ended")
      return 1
      """

      run = fn wait, timeout ->
        Snex.pyeval(there, code, %{"test" => self(), "wait" => wait}, run: :thread, timeout: timeout)
      end

      assert capture_io(fn -> assert run.(false, 60_000) == {:ok, 1} end) == "from a thread\n"
      assert_received "ended"
      capture_io(fn -> assert {:error, %Error{code: :response_timeout}} = run.(true, 2_000) end)
      assert_receive "ended", 60_000
    end

    test "is reached by its pid", %{there: there, b: b} do
      assert node(there) == b
      assert Snex.pyeval(there, "return x + 1", %{"x" => 41}) == {:ok, 42}
      assert Snex.pyeval(there, "return await Elixir.Node.self()") == {:ok, b}
      assert {:ok, pid} = Snex.pyeval(there, "import os; return os.getpid()")
      assert Interpreter.os_pid(there) == pid
    end

    test "is reached by {name, node}, {:global, name} and {:via, module, name}", %{b: b} do
      there = Peer.start_interpreter!(b, name: :somewhere)
      assert Snex.pyeval({:somewhere, b}, "return 1") == {:ok, 1}
      assert {:ok, env} = Snex.make_env({:somewhere, b}, %{"x" => 1})
      assert env.interpreter == there
      assert {:ok, copy} = Snex.make_env({:somewhere, b}, from: env)
      assert Snex.pyeval(copy, "return x") == {:ok, 1}

      :yes = :global.register_name(:far_away, there)
      assert Snex.pyeval({:global, :far_away}, "return 1") == {:ok, 1}
      assert Snex.pyeval({:via, :global, :far_away}, "return 1") == {:ok, 1}
      assert {:ok, %Env{interpreter: ^there}} = Snex.make_env({:via, :global, :far_away})
    end

    test "stops from here", %{there: there} do
      assert Interpreter.stop(there) == :ok
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(there, "return 1")
    end

    test "gives values of every kind, and takes them", %{there: there} do
      value = %{
        "self" => self(),
        "list" => [1, 2.5, nil, true, :atom, "text", {1, 2}, 2 ** 100],
        "set" => MapSet.new([1, 2]),
        "opaque" => make_ref(),
        "date" => ~D[2026-11-21]
      }

      assert Snex.pyeval(there, "return value", %{"value" => value}) == {:ok, value}
      binary = :binary.copy(<<0, 255>>, 1_000_000)
      assert Snex.pyeval(there, "return b", %{"b" => Serde.binary(binary)}) == {:ok, binary}

      assert Snex.pyeval(there, "return type(x).__name__", %{"x" => "a"}, encoding_opts: [binary_as: :bytes]) ==
               {:ok, "bytes"}
    end

    test "calls back and sends messages to this node", %{there: there} do
      code = """
      await snex.send(test, "hello")
      return await snex.call("Elixir.Kernel", "node", [], node=node)
      """

      assert Snex.pyeval(there, code, %{"test" => self(), "node" => node()}) == {:ok, node()}
      assert_received "hello"
    end

    test "reports what Python raises", %{there: there} do
      assert {:error, %Error{code: :python_runtime_error} = error} = Snex.pyeval(there, "return 1 / 0")
      assert error.exception.type == "ZeroDivisionError"

      assert_raise Error, ~r/ZeroDivisionError: division by zero/, fn ->
        Snex.pyeval!(there, "return 1 / 0")
      end
    end

    test "refuses a result beyond limits: [reply: bytes], and lives on", %{b: b} do
      there = Peer.start_interpreter!(b, limits: [reply: 1_000])
      env = Snex.make_env!(there, %{"x" => String.duplicate("x", 2000)})

      for where <- [there, env] do
        assert {:error, %Error{exception: %{type: "TooLargeError"}} = error} =
                 Snex.pyeval(where, "return 'x' * 2000")

        assert error.reason =~ "at least 2006 bytes, and the limit is 1000"
        assert Snex.pyeval(where, "return 1") == {:ok, 1}
      end
    end

    test "reports how Python ended, to the calls under way", %{there: there} do
      assert {:error, %Error{code: :interpreter_exited, reason: {:exit_status, 3}}} =
               Snex.pyeval(there, "import os; os._exit(3)")
    end

    test "raises ArgumentError in the caller", %{there: there} do
      assert_raise ArgumentError, ~r/have to be strings in UTF-8, got: :x/, fn ->
        Snex.pyeval(there, "return x", %{x: 1})
      end

      local = Snex.make_env!(start_interpreter!())
      assert_raise ArgumentError, ~r/belongs to the interpreter/, fn -> Snex.make_env(there, from: local) end
      assert_raise ArgumentError, ~r/unknown option :timeuot/, fn -> Snex.pyeval(there, "", timeuot: 1) end
    end

    test "times out, is cancelled there, and leaves no message here", %{there: there} do
      Snex.pyeval!(there, "pass", %{"test" => self()})

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(there, @endless, %{"test" => self()}, timeout: 100)

      assert_receive "cancelled", 60_000
      assert in_flight(there) == 0
      # "running" came before.
      assert_received "running"
      refute_received _
    end

    test "prints to the group leader of the caller", %{there: there} do
      assert capture_io(fn -> Snex.pyeval!(there, "print('from', 'afar')") end) == "from afar\n"
    end
  end

  describe "an environment made here for an interpreter there" do
    test "is used, copied and destroyed from here", %{there: there} do
      env = Snex.make_env!(there, %{"x" => 1, "y" => 2})
      assert inspect(env) == "#Snex.Env<#{env.id}>"
      assert Env.interpreter(env) == there
      assert Snex.pyeval(env, "x += 1; return x") == {:ok, 2}

      copy = Snex.make_env!(%{"z" => 3}, from: {env, only: ["x"]})
      assert Snex.pyeval(copy, "return (x, z, 'y' in globals())") == {:ok, {2, 3, false}}
      assert {:error, %Error{code: :env_key_not_found}} = Snex.make_env(from: {env, only: ["nothing"]})

      assert Snex.destroy_env(env) == :ok
      assert Snex.destroy_env(env) == :ok
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return x")
      assert Snex.pyeval(copy, "return x") == {:ok, 2}
    end

    test "is waited for as long as :timeout says", %{there: there} do
      os_pid = to_string(Interpreter.os_pid(there))
      {_, 0} = System.cmd("kill", ["-STOP", os_pid])
      assert {:error, %Error{code: :response_timeout}} = Snex.make_env(there, timeout: 50)
      {_, 0} = System.cmd("kill", ["-CONT", os_pid])
      assert {:ok, _env} = Snex.make_env(there, timeout: :infinity)
    end

    test "stays while this node refers to it", %{there: there, b: b} do
      env = marked!(there)
      elsewhere(fn -> for _ <- 1..10, do: marked!(there) && nil end)
      eventually(fn -> marks(there) == 1 end)
      for pid <- :erpc.call(b, Process, :list, []), do: :erpc.call(b, :erlang, :garbage_collect, [pid])
      :erlang.garbage_collect()
      assert Snex.pyeval(env, "return mine in marks") == {:ok, true}
    end

    test "is dropped when this node does not refer to it any more, without any further call", %{
      there: there,
      b: b
    } do
      elsewhere(fn -> for _ <- 1..10, do: marked!(there) && nil end)
      eventually(fn -> marks(there) == 0 end)
      eventually(fn -> at_rest?([node(), b]) end)
    end

    test "is dropped when its maker is killed", %{there: there} do
      test = self()

      maker =
        spawn(fn ->
          env = marked!(there)
          send(test, {:made, env.id})
          receive do: (:never -> env)
        end)

      assert_receive {:made, _id}, 60_000
      assert marks(there) == 1
      Process.exit(maker, :kill)
      eventually(fn -> marks(there) == 0 end)
    end

    test "is dropped when the node that made it goes down" do
      here = start_interpreter!(init_script: marks())
      {c, control} = Peer.start_node!()
      {{:ok, env}, _keeper} = Peer.run(c, Snex, :make_env, [here])
      Snex.pyeval!(env, "mine = mark()")
      :erlang.garbage_collect()
      assert marks(here) == 1
      assert %{handles: 1, tickets: 1, trackers: 1} = tracked(node())

      Peer.stop_node(control)
      eventually(fn -> marks(here) == 0 end)
      eventually(fn -> at_rest?([node()]) end)
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
    end

    test "stays after disable_gc until it is destroyed, also when the node that made it goes down" do
      here = start_interpreter!(init_script: marks())
      {c, control} = Peer.start_node!()
      {{:ok, env}, _keeper} = Peer.run(c, Snex, :make_env, [here])
      Snex.pyeval!(env, "mine = mark()")
      assert_raise ArgumentError, ~r/only be kept by the node that made it/, fn -> Env.disable_gc(env) end

      {%Env{}, _keeper} = Peer.run(c, Env, :disable_gc, [env])
      {%Env{}, _keeper} = Peer.run(c, Env, :disable_gc, [env])

      Peer.stop_node(control)
      eventually(fn -> at_rest?([node()]) end)
      elsewhere(fn -> for _ <- 1..10, do: marked!(here) && nil end)
      eventually(fn -> marks(here) == 1 end)
      assert Snex.pyeval(env, "return mine in marks") == {:ok, true}
      assert Snex.destroy_env(env) == :ok
      eventually(fn -> marks(here) == 0 end)
    end

    test "can be kept again after the last reference on the node that made it was collected", %{there: there} do
      text = elsewhere(fn -> there |> marked!() |> Env.disable_gc() |> :erlang.term_to_binary() end)
      # Its proxy is gone, and the handle there.
      eventually(fn -> at_rest?([node(), node(there)]) end)
      env = :erlang.binary_to_term(text)
      assert Env.disable_gc(env) == env
      assert Snex.pyeval(env, "return mine in marks") == {:ok, true}
      assert Snex.destroy_env(env) == :ok
      eventually(fn -> marks(there) == 0 end)
    end

    test "is gone with its interpreter", %{there: there, b: b} do
      env = marked!(there)
      assert tracked(b).handles == 1
      Interpreter.stop(there)
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(env, "return 1")
      assert Env.disable_gc(env) == env
      assert Snex.destroy_env(env) == :ok
    end

    test "is destroyed from any node, twice, and also when its interpreter is gone", %{there: there} do
      {c, _control} = Peer.start_node!()
      env = marked!(there)
      assert :erpc.call(c, Snex, :destroy_env, [env]) == :ok
      eventually(fn -> marks(there) == 0 end)
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
      assert :erpc.call(c, Snex, :destroy_env, [env]) == :ok
      Interpreter.stop(there)
      assert :erpc.call(c, Snex, :destroy_env, [env]) == :ok
    end

    test "that cannot be made leaves nothing behind", %{there: there, b: b} do
      elsewhere(fn ->
        assert_raise ArgumentError, fn -> Snex.make_env(there, %{x: 1}) end
        env = Snex.make_env!(there)
        assert {:error, %Error{}} = Snex.make_env(from: {env, only: ["nothing"]})
      end)

      eventually(fn -> at_rest?([node(), b]) end)
    end
  end

  describe "an environment of an interpreter here" do
    test "is used from any node: pyeval, make_env, destroy_env", %{b: b} do
      here = start_interpreter!(init_script: marks())
      env = Snex.make_env!(here, %{"x" => 1})
      assert :erpc.call(b, Snex, :pyeval, [env, "x += 1; return x"]) == {:ok, 2}
      assert {:ok, 2} = Snex.pyeval(env, "return x")
      assert {:ok, %Env{interpreter: ^here}} = :erpc.call(b, Snex, :make_env, [[from: env]])
      assert :erpc.call(b, Env, :interpreter, [env]) == here
      assert :erpc.call(b, Snex, :destroy_env, [env]) == :ok
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return x")
    end

    test "disable_gc/1 raises ArgumentError on another node than that which made it", %{b: b} do
      env = Snex.make_env!(start_interpreter!())

      assert {:exception, %ArgumentError{message: message}, _} =
               catch_error(:erpc.call(b, Env, :disable_gc, [env]))

      assert message =~ "can only be kept by the node that made it"
      assert Env.disable_gc(env) == env
    end

    test "that went to another node and came back still works, and is what keeps it alive", %{b: b} do
      here = start_interpreter!(init_script: marks())
      test = self()

      maker =
        Task.async(fn ->
          env = marked!(here)
          {^env, _keeper} = Peer.run(b, Function, :identity, [env])
          send(test, {:back, :erpc.call(b, Function, :identity, [env])})
          env.id
        end)

      id = Task.await(maker, :infinity)
      assert_receive {:back, %Env{id: ^id} = env}, 60_000
      elsewhere(fn -> for _ <- 1..10, do: marked!(here) && nil end)
      eventually(fn -> marks(here) == 1 end)
      assert Env.disable_gc(env) == env
      assert Snex.pyeval(env, "return mine in marks") == {:ok, true}
    end
  end

  describe "a node that goes down in the middle of a call" do
    test "makes it :call_failed on the side of the caller, with nothing left behind" do
      {c, control} = Peer.start_node!()
      there = Peer.start_interpreter!(c)
      env = Snex.make_env!(there)
      test = self()
      call = Task.async(fn -> Snex.pyeval(env, @endless, %{"test" => test}, timeout: :infinity) end)
      assert_receive "running", 60_000
      os_pid = Interpreter.os_pid(there)
      Peer.stop_node(control)

      assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^c}} = error} =
               Task.await(call, :infinity)

      assert Exception.message(error) =~ "the node of the interpreter is down"
      assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^c}}} = Snex.pyeval(env, "return 1")
      assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^c}}} = Snex.make_env(there)
      assert Snex.destroy_env(env) == :ok
      eventually(fn -> at_rest?([node()]) end)
      await_gone([os_pid])
    end

    test "has it cancelled on the side of the interpreter, with nothing left behind" do
      here = start_interpreter!(init_script: marks())
      {c, control} = Peer.start_node!()
      # Not through `Peer.run/4`, which would wait for it.
      Node.spawn(c, Snex, :pyeval, [here, @endless, %{"test" => self()}, [timeout: :infinity]])
      assert_receive "running", 60_000
      assert in_flight(here) == 1
      Peer.stop_node(control)
      assert_receive "cancelled", 60_000
      eventually(fn -> in_flight(here) == 0 end)
    end

    test "and a caller that is killed in the middle of a call has it cancelled", %{there: there} do
      test = self()
      caller = spawn(fn -> Snex.pyeval(there, @endless, %{"test" => test}, timeout: :infinity) end)
      assert_receive "running", 60_000
      Process.exit(caller, :kill)
      assert_receive "cancelled", 60_000
      eventually(fn -> in_flight(there) == 0 end)
    end
  end

  test "an interpreter on a node that cannot be reached: :call_failed" do
    nowhere = :"snex-nowhere@127.0.0.1"

    assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^nowhere}}} =
             Snex.pyeval({:inp, nowhere}, "return 1")

    assert {:error, %Error{code: :call_failed, reason: {:nodedown, ^nowhere}}} =
             Snex.make_env({:inp, nowhere})

    assert {:error, %Error{code: :call_failed}} = Snex.pyeval({:global, :nobody}, "return 1")
  end

  test "a name that nobody has on another node: :call_failed, :noproc", %{b: b} do
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval({:nobody, b}, "return 1")
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.make_env({:nobody, b})
  end
end
