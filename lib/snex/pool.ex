defmodule Snex.Pool do
  @moduledoc """
  Several interpreters under one name: each call runs in the least busy interpreter.

      children = [
        {Snex.Pool,
         name: MyApp.Python,
         interpreter: MyApp.Numpy,
         size: 4,
         init_script: "import numpy as np"}
      ]

      {:ok, value} =
        Snex.pyeval(MyApp.Python, "return float(np.mean(xs))", %{"xs" => [1, 2, 3]})

  One Python uses one core. A pool uses as many cores as it has interpreters, replaces interpreters that end, and makes
  calls wait when all are busy. It can be used wherever an interpreter can: with `Snex.pyeval/4`, `Snex.call/4`,
  `Snex.get/3`, `Snex.stream/4`, `Snex.make_env/3`, and `Snex.map/4`, which then uses all of the pool's interpreters.
  The guide [Pools](pools.md) covers sizes, overload and containers.

  ## Where a call runs

  A call goes to the least loaded interpreter that has room (see `:concurrency`), without a message to another process.
  If none has room, the call waits. Waiting calls are served in order, within their own `:timeout` and the `:timeout` of
  the `:queue`. A call that can't wait, or has waited too long, is never started, and returns
  `{:error, %Snex.Error{code: :overloaded}}`.

  An environment or an object belongs to the interpreter that made it. Calls that use it run there at once: they count
  as load, but don't wait. The same applies to calls of the pool with such an object among their arguments.

  A stream counts as one call until it ends. A call that has timed out counts until Python has stopped its work.

  Elixir code called by Python may use the pool itself. If all interpreters are busy, such a call doesn't wait: it runs
  in the interpreter that waits for it.

  ## Clusters

  With `scope: :cluster`, pools with the same `:name` and `:interpreter` on connected nodes find each other. A call runs
  on its own node while there is room. Otherwise, the pool asks two other nodes how loaded they are, and the call goes
  to the least loaded of the three. It waits there no longer than it would have waited on its own node, and is not
  passed on again.

  Environments and objects belong to their interpreter, wherever it is. A call with an object among its arguments runs
  where the object is.

  When a node dies or is disconnected, calls that run there return the code `:call_failed` with the reason
  `{:nodedown, node}`; with `retry: 1`, they run again elsewhere. Calls that still wait there return to their own node.
  `drain/2` sends all new calls elsewhere. `checkout/3` and calls that name a node, `{name, node}`, are never passed on.

  ## Failures

  If an interpreter ends, it is replaced, and only the calls that run in it fail. With the option `retry: 1`, such a
  call runs again on another interpreter. A stuck interpreter is ended at once: in pools, `:on_stuck` defaults to
  `:restart`.

  If an interpreter can't be started, the pool tries again, with pauses from a tenth of a second to 30 seconds; `info/1`
  returns the error.

  After its interpreter has been replaced, a call with an environment returns the code `:env_not_found`; a call with an
  object returns `:object_not_found`.
  """

  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Options
  alias Snex.Pool.Choice
  alias Snex.Pool.Server
  alias Snex.Remote
  alias Snex.Request

  # How long another node may take to say how many calls a pool runs at a time, in ms.
  @patience 5_000

  @typedoc "A pool: its pid, or anything else that names a `GenServer`."
  @type t() :: GenServer.server()

  @typedoc "The pool's own options, and those of `Snex.Interpreter.start_link/1`."
  @type option() :: unquote(Snex.Pool.Options.spec()) | Interpreter.option()

  @checkout [
    timeout: [
      type: :timeout,
      default: 5_000,
      doc: "how long to wait for an interpreter, in ms, or `:infinity`"
    ]
  ]

  @type checkout_opt() :: unquote(Options.spec(@checkout))

  @doc """
  Starts a pool linked to the caller.

  Returns when all interpreters run. If one cannot be started, it returns `{:error, %Snex.Error{}}` at once, and no
  interpreter is left running.

  #{Options.documentation(Snex.Pool.Options.table())}

  All other options are passed to the interpreters; see `Snex.Interpreter.start_link/1`. Raises `ArgumentError` for an
  unknown option and for an invalid value.

      iex> {:ok, pool} = Snex.Pool.start_link(size: 2, init_script: "y = 2")
      iex> Snex.pyeval(pool, "return x * y", %{"x" => 21})
      {:ok, 42}
      iex> Snex.Pool.start_link(size: 0)
      ** (ArgumentError) option :size cannot be 0: expected an integer from 1 to 10000
  """
  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(opts \\ []) do
    {own, options} = Snex.Pool.Options.split!(opts)
    server_opts = if own.name, do: [name: own.name], else: []
    GenServer.start_link(Server, {own, interpreter_options(own, options)}, server_opts)
  end

  defp interpreter_options(own, options) do
    # A stuck interpreter is restarted at once: the pool has others meanwhile.
    options = Keyword.put_new(options, :on_stuck, :restart)
    if own.interpreter == Interpreter, do: Keyword.put_new(options, :label, own.name), else: options
  end

  @doc """
  Returns a specification to start a pool under a supervisor.

  Its id is the `:name` given, or this module.

      iex> Snex.Pool.child_spec(name: MyApp.Python).id
      MyApp.Python
  """
  @spec child_spec([option()]) :: Supervisor.child_spec()
  def child_spec(opts) do
    {own, options} = Snex.Pool.Options.split!(opts)
    %{shutdown: shutdown} = Supervisor.child_spec({own.interpreter, options}, [])
    # The interpreters of a pool stop at the same time, so it needs little longer than one of them.
    shutdown = if is_integer(shutdown), do: min(shutdown + 1_000, 0xFFFF_FFFF), else: :infinity
    %{id: own.name || __MODULE__, start: {__MODULE__, :start_link, [opts]}, shutdown: shutdown}
  end

  @doc """
  Returns the state of a pool, as a map.

    * `:size`: how many interpreters there should be; `:running`: how many take calls
    * `:concurrency`: how many calls each interpreter runs at a time
    * `:waiting`: how many calls wait
    * `:nodes`: the pids of the pools that share calls, by node; with `scope: :node`, only this pool
    * `:draining`: whether `drain/2` was called
    * `:fork`: the option of that name, or `false` if the interpreters are not copies; `:template`: the interpreter that
      will be copied next, or `nil` while there is none
    * `:failure`: `nil`, or, after an interpreter could not be started,
      `%{error: error, attempts: n, next_attempt_in: ms}`
    * `:members`: for each interpreter, a map with `:interpreter`, its pid; `:status`, which is `:starting`, `:running`,
      `:leaving` (it takes no more calls, and ends after its running calls) or `:used` (with `fork: :each_call`, it has
      had its call); `:due`, why it is going to be replaced, or `nil`; `:calls_running`, a number or `:checked_out`;
      `:calls`, how many calls it has had; `:age` in ms; `:memory`, its resident memory in bytes

  Exits like `GenServer.call/3` if there is no answer within `timeout`.

      iex> {:ok, pool} = Snex.Pool.start_link(size: 2)
      iex> info = Snex.Pool.info(pool)
      iex> {info.size, info.running, info.waiting}
      {2, 2, 0}
      iex> for member <- info.members, do: member.calls_running
      [0, 0]
  """
  @spec info(t(), timeout()) :: map()
  def info(pool, timeout \\ 5_000), do: call(pool, :info, timeout)

  @doc false
  # How many calls a pool runs at a time; 1 for an interpreter, and for anything that cannot be reached.
  @spec capacity(t()) :: pos_integer()
  def capacity(server) do
    case Remote.locate(server) do
      pid when is_pid(pid) and node(pid) == node() -> Choice.width(pid)
      pid when is_pid(pid) -> :erpc.call(node(pid), __MODULE__, :capacity, [pid], @patience)
      {name, node} -> :erpc.call(node, __MODULE__, :capacity, [name], @patience)
      nil -> 1
    end
  catch
    # The calls themselves will return the error.
    _kind, _reason -> 1
  end

  @doc """
  Changes the number of interpreters, and returns `:ok` when that many take calls, or `{:error, %Snex.Error{}}`.

  Surplus interpreters take no more calls, and end after their running calls. If an interpreter cannot be started, the
  error is returned, and the pool keeps trying.

  Exits like `GenServer.call/3` if that takes longer than `timeout`; the pool carries on with the change.

      iex> {:ok, pool} = Snex.Pool.start_link(size: 1)
      iex> Snex.Pool.resize(pool, 2)
      :ok
      iex> Snex.Pool.info(pool).running
      2
  """
  @spec resize(t(), pos_integer(), timeout()) :: :ok | {:error, Error.t()}
  def resize(pool, size, timeout \\ 60_000),
    do: call(pool, {:resize, Snex.Pool.Options.size!(size)}, timeout)

  @doc """
  Replaces all interpreters, one after the other, and returns `:ok` when none of the old ones takes calls any longer.

  If an interpreter cannot be started, it returns `{:error, %Snex.Error{}}`, and the interpreters that have not been
  replaced go on.

  With `fork: true`, the template is replaced first. No call fails because of the restart, and there are never fewer
  interpreters than before. Environments and objects are lost with their interpreter.

  Exits like `GenServer.call/3` if that takes longer than `timeout`; the pool carries on with the restart.

      iex> {:ok, pool} = Snex.Pool.start_link(size: 1)
      iex> {:ok, before} = Snex.pyeval(pool, "import os; return os.getpid()")
      iex> Snex.Pool.restart(pool)
      :ok
      iex> {:ok, now} = Snex.pyeval(pool, "import os; return os.getpid()")
      iex> now == before
      false
  """
  @spec restart(t(), timeout()) :: :ok | {:error, Error.t()}
  def restart(pool, timeout \\ :infinity), do: call(pool, :restart, timeout)

  @doc """
  Stops the pool from taking new calls, and returns `:ok` when all running and waiting calls have ended.

  This cannot be undone. New calls return the code `:call_failed` or, with `scope: :cluster`, run on other nodes. Calls
  that use an environment or an object of one of its interpreters are still answered.

  Exits like `GenServer.call/3` if that takes longer than `timeout`.

      iex> {:ok, pool} = Snex.Pool.start_link(size: 1)
      iex> Snex.Pool.drain(pool)
      :ok
      iex> {:error, error} = Snex.pyeval(pool, "return 1")
      iex> error.reason
      "the pool is drained: it takes no new calls"
  """
  @spec drain(t(), timeout()) :: :ok
  def drain(pool, timeout \\ :infinity), do: call(pool, :drain, timeout)

  @doc """
  Calls `fun` with an interpreter that no other call of the pool uses meanwhile, and returns `{:ok, result}`.

  If no interpreter became free in time, it returns `{:error, %Snex.Error{}}`.

  Use it for work that keeps state in Python between calls, or for several environments that belong together. The
  interpreter is free again when `fun` returns or raises, or when the calling process ends.

  A checkout waits for an interpreter in which nothing runs. Meanwhile, the calls behind it wait as well.

  Within `fun`, calls of the pool from the calling process run in this interpreter, and another `checkout/3` of the pool
  passes the same interpreter: a process never waits for itself. A task that it starts does wait.

  The pool has to be on this node.

  #{Options.documentation(@checkout)}

      iex> {:ok, pool} = Snex.Pool.start_link(size: 2)
      iex> Snex.Pool.checkout(pool, fn py ->
      ...>   {:ok, nil} = Snex.pyeval(py, "import os; os.word = 'kept'")
      ...>   Snex.get(pool, "os.word")
      ...> end)
      {:ok, {:ok, "kept"}}
  """
  @spec checkout(t(), (pid() -> result), [checkout_opt()]) :: {:ok, result} | {:error, Error.t()}
        when result: term()
  def checkout(pool, fun, opts \\ []) when is_function(fun, 1) do
    %{timeout: timeout} = Options.check!(opts, @checkout)

    case Remote.locate(pool) do
      pid when is_pid(pid) and node(pid) == node() ->
        Choice.checkout(pid, fun, Request.deadline(timeout))

      nil ->
        {:error, %Error{code: :call_failed, reason: :noproc, details: %{interpreter: pool}}}

      _elsewhere ->
        raise ArgumentError,
              "an interpreter can only be checked out of a pool on this node, got: #{inspect(pool)}"
    end
  end

  defp call(pool, request, timeout) do
    case Remote.locate(pool) do
      nil ->
        exit({:noproc, {GenServer, :call, [pool, request, timeout]}})

      pid when is_pid(pid) and node(pid) == node() ->
        # An unknown request would crash an interpreter.
        if :proc_lib.translate_initial_call(pid) != {Server, :init, 1},
          do: raise(ArgumentError, "expected a pool, got: #{inspect(pool)}")

        GenServer.call(pid, request, timeout)

      elsewhere ->
        GenServer.call(elsewhere, request, timeout)
    end
  end
end
