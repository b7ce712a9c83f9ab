defmodule Snex.Pools do
  @moduledoc """
  What the tests of pools need: a pool, and calls that run until they are let go.
  """

  import ExUnit.Assertions
  import Snex.Case, only: [eventually: 3]

  alias Snex.Pool

  @doc "Starts a pool that is stopped after the test. Its calls may wait long: the machine may be busy."
  def start_pool!(opts), do: ExUnit.Callbacks.start_supervised!({Pool, patient(opts)}, id: make_ref())

  @doc "Starts a pool that nobody is linked to."
  def start_alone!(opts) do
    {:ok, pool} = Pool.start_link(patient(opts))
    Process.unlink(pool)
    pool
  end

  defp patient(opts),
    do: Keyword.update(opts, :queue, [timeout: 60_000], &Keyword.put_new(&1, :timeout, 60_000))

  @doc """
  Begins a call that runs until `let_go/1`, and returns it once it runs: `:task` returns what the call does, `:os_pid` is Python's.
  `cleanup?` has it run on when it is cancelled.
  """
  def hold(where, opts \\ [], cleanup? \\ false) do
    call = begin(where, opts, cleanup?)
    Map.merge(call, await_running(call))
  end

  @doc "As `hold/3`, for a call that may have to wait: `await_running/1` waits until it runs."
  def begin(where, opts \\ [], cleanup? \\ false) do
    {me, reference} = {self(), make_ref()}

    hold = fn os_pid ->
      send(me, {reference, :running, self(), os_pid})

      receive do
        :go -> nil
      end
    end

    code =
      if cleanup?,
        do: "import os\ntry:\n  await hold(os.getpid())\nfinally:\n  await hold(os.getpid())",
        else: "import os\nawait hold(os.getpid())\nreturn os.getpid()"

    task = Task.async(fn -> Snex.pyeval(where, code, %{"hold" => hold}, opts) end)
    %{task: task, reference: reference}
  end

  @doc "Waits until a call has got as far as a `hold`."
  def await_running(%{reference: reference}) do
    assert_receive {^reference, :running, holder, os_pid}, 60_000
    %{holder: holder, os_pid: os_pid}
  end

  @doc "Whether a call has begun to run by now."
  def running?(%{reference: reference}) do
    receive do
      {^reference, :running, _holder, _os_pid} = message ->
        send(self(), message)
        true
    after
      0 -> false
    end
  end

  @doc "Ends the `hold` of a call, and returns what the call does."
  def let_go(%{holder: holder, task: task}) do
    send(holder, :go)
    Task.await(task, 60_000)
  end

  @doc "A function that asks a pool, on whichever node it runs."
  def asking(pool), do: fn -> Snex.pyeval!(pool, "return 42", timeout: 60_000) end

  @doc "Something of an interpreter that has run `Snex.Case.marks/0`, with a mark in it."
  def marked!(interpreter, :object), do: Snex.call!(interpreter, "mark", [], returns: :object)

  def marked!(interpreter, :env) do
    env = Snex.make_env!(interpreter)
    nil = Snex.pyeval!(env, "mine = mark()")
    env
  end

  @doc "Waits until so many calls wait."
  def await_waiting(pool, count), do: until(pool, &(&1.waiting == count))

  @doc "Waits until nothing runs in a pool any more, and none waits."
  def await_idle(pool),
    do: until(pool, &(&1.waiting == 0 and Enum.all?(&1.members, fn one -> one.calls_running == 0 end)))

  @doc "Waits until `info/1` says so."
  def until(pool, fun),
    do: eventually(fn -> fun.(Pool.info(pool)) end, 6_000, fn -> inspect(Pool.info(pool)) end)

  @doc "The interpreters that take calls."
  def running(pool), do: for(%{status: :running, interpreter: pid} <- Pool.info(pool).members, do: pid)

  @doc "Kills the Python of an interpreter."
  def kill(interpreter), do: {_, 0} = System.cmd("kill", ["-KILL", "#{Snex.Interpreter.os_pid(interpreter)}"])

  defmodule Other do
    @moduledoc "Interpreters of another kind."
    defdelegate start_link(opts), to: Snex.Interpreter
    defdelegate child_spec(opts), to: Snex.Interpreter
  end
end
