defmodule Snex.EnvTest do
  use Snex.Case, async: true

  alias Snex.Env

  doctest Snex.Env

  @moduletag :interpreter

  # How many environments Python knows besides the root; objects of the test's own class die with their environment.
  # PyPy has no counts of references: there it takes a collection.
  @alive "import gc, sys; sys.implementation.name == 'pypy' and gc.collect(); return len(marks)"
  defp alive(inp), do: Snex.pyeval(inp, @alive, %{}, timeout: 60_000) |> elem(1)

  setup do
    {:ok, inp: start_interpreter!(init_script: marks())}
  end

  defp marked(inp) do
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "mine = mark()")
    env
  end

  test "has an id, which is all that Inspect shows", %{inp: inp} do
    envs = for _ <- 1..3, do: marked(inp)
    for env <- envs, do: assert(inspect(env) == "#Snex.Env<#{env.id}>")
    assert envs |> Enum.uniq_by(& &1.id) |> length() == 3
  end

  test "no two have the same id, also of different interpreters", %{inp: inp} do
    other = start_interpreter!()
    envs = for _ <- 1..3, interpreter <- [inp, other], do: Snex.make_env!(interpreter)
    assert envs |> Enum.uniq_by(& &1.id) |> length() == 6
  end

  test "interpreter/1 is the pid of its interpreter, also for one that was given by name" do
    for {server, pid} <- start_named_interpreters!() do
      assert server |> Snex.make_env!() |> Env.interpreter() == pid
    end
  end

  test "ids of dropped environments are sent to Python in batches", %{inp: inp} do
    # Counts what arrives in Python.
    counter = Snex.make_env!(inp)

    {:ok, nil} =
      Snex.pyeval(counter, """
      from snex._eval.envs import Envs

      batches = []
      original = Envs.drop

      def drop(self, counts):
          batches.append(len(counts))
          original(self, counts)

      Envs.drop = drop
      """)

    # They all become garbage at once, when this process ends.
    {_pid, monitor} = spawn_monitor(fn -> for _ <- 1..1_000, do: Snex.make_env!(inp) end)
    assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 60_000
    eventually(fn -> Snex.pyeval(counter, "return sum(batches)") == {:ok, 1_000} end)
    assert {:ok, true} = Snex.pyeval(counter, "return len(batches) < 1_000")
  end

  test "is dropped when nobody on its node refers to it any more, without any call in between", %{inp: inp} do
    # In a process of its own: when it ends, so do its references.
    Task.await(Task.async(fn -> for _ <- 1..100, do: marked(inp) && nil end), :infinity)
    eventually(fn -> alive(inp) == 0 end)
  end

  test "stays while anyone on its node refers to it", %{inp: inp} do
    env = marked(inp)
    Task.await(Task.async(fn -> for _ <- 1..10, do: marked(inp) && nil end), :infinity)
    eventually(fn -> alive(inp) == 1 end)
    assert {:ok, true} = Snex.pyeval(env, "return mine in marks")
  end

  # Whether a task waits for an answer, or for room for its request.
  defp waits?(task) do
    match?(
      [status: :waiting, current_function: {Snex.Request, _, _}],
      Process.info(task.pid, [:status, :current_function])
    )
  end

  test "is alive at least until the call that uses it has returned" do
    inp = start_interpreter!(port_opts: [busy_limits_port: {0, 1}])
    test = self()
    {:ok, control} = Snex.make_env(inp)
    {:ok, writer} = Snex.pyeval(control, "import os; r, w = os.pipe(); return w")

    user =
      Task.async(fn ->
        env = Snex.make_env!(inp, %{"x" => 1})
        send(test, :made)
        receive do: (:go -> Snex.pyeval(env, "return x", timeout: :infinity))
      end)

    assert_receive :made, 60_000

    # Python blocks until a byte comes through this pipe.
    blocker =
      Task.async(fn ->
        Snex.pyeval(control, "await snex.send(test, 'blocked'); os.read(r, 1)", %{"test" => test},
          timeout: :infinity
        )
      end)

    assert_receive "blocked", 60_000
    # More than the pipe takes: the queue is full.
    large =
      Task.async(fn ->
        Snex.pyeval(inp, %{"x" => String.duplicate("x", 4_000_000)}, timeout: :infinity)
      end)

    eventually(fn -> waits?(large) end)

    # The call has to wait for room, and nothing else refers to the environment.
    send(user.pid, :go)
    eventually(fn -> waits?(user) end)
    :erlang.garbage_collect(user.pid)
    File.write!("/proc/#{Interpreter.os_pid(inp)}/fd/#{writer}", "x")
    assert {:ok, nil} = Task.await(blocker, :infinity)
    assert {:ok, nil} = Task.await(large, :infinity)
    assert {:ok, 1} = Task.await(user, :infinity)
  end

  test "disable_gc/1, called once or twice, keeps it until it is destroyed", %{inp: inp} do
    env =
      Task.await(
        Task.async(fn ->
          env = Env.disable_gc(Env.disable_gc(marked(inp)))
          # Without the handle, so that nothing refers to the environment when this process has ended.
          %{env | handle: make_ref()}
        end),
        :infinity
      )

    Task.await(Task.async(fn -> for _ <- 1..10, do: marked(inp) && nil end), :infinity)
    eventually(fn -> alive(inp) == 1 end)
    assert Snex.destroy_env(env) == :ok
    assert Snex.destroy_env(env) == :ok
    eventually(fn -> alive(inp) == 0 end)
    assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
  end

  test "disable_gc/1 can be called again after the last reference was collected", %{inp: inp} do
    # As an environment looks that was on another node meanwhile: with a reference to no handle any more.
    text =
      Task.await(
        Task.async(fn -> inp |> marked() |> Env.disable_gc() |> :erlang.term_to_binary() end),
        :infinity
      )

    Task.await(Task.async(fn -> for _ <- 1..10, do: marked(inp) && nil end), :infinity)
    eventually(fn -> alive(inp) == 1 end)
    env = :erlang.binary_to_term(text)
    assert Env.disable_gc(env) == env
    assert Snex.pyeval(env, "return mine in marks") == {:ok, true}
    assert Snex.destroy_env(env) == :ok
    eventually(fn -> alive(inp) == 0 end)
    # There is nothing to keep.
    assert Env.disable_gc(env) == env
    Interpreter.stop(inp)
    assert Env.disable_gc(env) == env
  end

  test "destroy_env/1 is idempotent, and :ok even when the interpreter is gone", %{inp: inp} do
    [env, other] = for _ <- 1..2, do: marked(inp)
    assert Snex.destroy_env(env) == :ok
    assert Snex.destroy_env(env) == :ok
    assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
    assert Snex.pyeval(other, "return 1") == {:ok, 1}
    Interpreter.stop(inp)
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(other, "return 1")
    assert Snex.destroy_env(env) == :ok
    assert Snex.destroy_env(other) == :ok
  end
end
