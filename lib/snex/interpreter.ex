defmodule Snex.Interpreter do
  @moduledoc """
  A Python interpreter in an operating system process of its own, owned by a BEAM process.

      {:ok, interpreter} = Snex.Interpreter.start_link(python: "python3")
      {:ok, 42} = Snex.pyeval(interpreter, "return 6 * 7")

  In an application, define a module that names its Python and packages, and put it under a supervisor:

      defmodule MyApp.Numpy do
        use Snex.Interpreter,
          name: __MODULE__,
          init_script: "import numpy as np",
          pyproject_toml: \"""
          [project]
          name = "my-app"
          version = "0.0.0"
          requires-python = ">=3.10"
          dependencies = ["numpy>=2"]
          \"""
      end

      children = [MyApp.Numpy]

  Without a `:name`, start it with `{MyApp.Numpy, name: MyApp.Numpy}`; otherwise nobody can call it by name.

  ## `use Snex.Interpreter`

  Exactly one of the first two is required:

  #{Snex.Options.documentation(Keyword.delete(Snex.Project.Options.table(), :python_path))}

  Every option of `start_link/1` can be given here as a default, and `:restart` for the `child_spec/1`. Their values are
  evaluated each time an interpreter starts, and `start_link/1` overrides them:

      use Snex.Interpreter,
        name: __MODULE__,
        init_script: "import numpy as np",
        environment: %{"API_KEY" => System.fetch_env!("API_KEY")},
        project_path: "python"

  A mistake in the TOML is a compile error with file, line and column. uv runs when the module is compiled, and not again
  until something changes. The module gets `start_link/1`, `child_spec/1`, `os_pid/1`, `info/1` and `stop/3`;
  `start_link/1` and `child_spec/1` can be overridden.

  What is installed lies in `_build/$MIX_ENV/snex`. Add the compiler `:snex` in `mix.exs`: it makes the environments of
  dependencies again when they are missing, and has `mix clean` remove all of them; see `Mix.Tasks.Compile.Snex`.

  ### Locks

  The exact versions of all packages are in a lock. A folder's `uv.lock` is used as it is and never written to. For a
  project in the module, uv chooses the versions once on each machine; with `:lock` it writes them to that file, one for
  each module, to be committed. `mix snex.uv Module -- lock --upgrade` has uv choose newer versions.

  When the text changes, its lock is out of date, and uv changes it as little as possible: a file named by `:lock` in
  place, a folder's `uv.lock` in a copy in the build folder, with a warning. With `locked: true`, or if `CI` or
  `SNEX_LOCKED` is set to `true` in the environment, an outdated lock is a compile error instead. `SNEX_LOCKED=false`
  overrides the other two.

  ## What happens to the process

  The interpreter process owns a *warden*, a small program that starts Python and outlives it. When the interpreter
  process ends, however it ends, or the whole VM does, the warden ends Python and everything that Python started: SIGTERM
  first, SIGKILL after a grace. When Python ends by itself, the interpreter process exits with a `Snex.Error` of code
  `:interpreter_exited`, and its supervisor decides what comes next.
  """

  use GenServer

  alias Snex.Error
  alias Snex.Interpreter.Calls
  alias Snex.Interpreter.Launch
  alias Snex.Interpreter.Options
  alias Snex.Interpreter.Output
  alias Snex.Native
  alias Snex.Telemetry

  require Logger

  # What a worker tells its owner while it starts.
  @news [:snex_started, :snex_ready, :snex_ended]

  # What Python says of itself when it is ready.
  @python_fields [:python, :implementation, :executable, :version, :encoder]

  @typedoc "An interpreter process: a pid or anything else that names a `GenServer`."
  @type server() :: GenServer.server()

  @typedoc "Environment variables. `nil` unsets one; a function is called at each start."
  @type variables() :: %{
          optional(String.t()) => String.t() | nil | (-> String.t() | nil) | {module(), atom(), [term()]}
        }

  @typedoc "Turns a Python and its arguments into what is executed."
  @type wrap_exec() ::
          (python :: String.t(), args :: [String.t()] -> {String.t(), [String.t()]})
          | {module(), atom(), [term()]}

  @typedoc "A folder with Python code, or such a folder of an application."
  @type python_path() :: Path.t() | {app :: atom(), Path.t()}

  @typedoc "Code that runs first, optionally with variables, or a function that returns it."
  @type init_script() ::
          String.t()
          | Snex.Code.t()
          | {String.t() | Snex.Code.t(), %{optional(String.t()) => term()}}
          | (-> init_script())
          | {module(), atom(), [term()]}

  @type option() :: unquote(Snex.Options.spec(Options.table()))

  @typedoc "Where what Python prints goes; see `start_link/1`."
  @type output() :: :group_leader | :inherit | :logger | :discard | pid()

  @doc false
  defmacro __using__(opts), do: Snex.Interpreter.Definition.define(opts)

  @doc """
  Starts an interpreter linked to the caller.

  Returns when Python runs and the init script has run, or `{:error, %Snex.Error{}}`.

  #{Options.documentation()}

  Raises `ArgumentError` for an unknown option and for a value that an option cannot have.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link(init_script: {"y = 2 * x", %{"x" => 21}})
      iex> Snex.pyeval(interpreter, "return y")
      {:ok, 42}
  """
  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(opts \\ []) do
    {server_opts, options} = Options.split!(opts)
    GenServer.start_link(__MODULE__, options, server_opts)
  end

  @doc """
  A specification to start an interpreter under a supervisor. Its id is the `:name` given, or this module.

      iex> Snex.Interpreter.child_spec(name: MyApp.Python).id
      MyApp.Python
  """
  @spec child_spec([option()]) :: Supervisor.child_spec()
  def child_spec(opts) do
    %{
      id: Keyword.get(opts, :name, __MODULE__),
      start: {__MODULE__, :start_link, [opts]},
      # Python gets its whole grace before the supervisor loses patience.
      shutdown: min(Options.get!(opts, :stop_timeout) + 1_000, 0xFFFF_FFFF)
    }
  end

  @doc """
  The process id that Python has in the operating system.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, pid} = Snex.pyeval(interpreter, "import os; return os.getpid()")
      iex> Snex.Interpreter.os_pid(interpreter) == pid
      true
  """
  @spec os_pid(server()) :: non_neg_integer()
  def os_pid(interpreter), do: GenServer.call(interpreter, :os_pid)

  @doc """
  What an interpreter is and does: a map with

    * `:python` (such as `"3.13.0"`), `:implementation` (`"CPython"`, `"PyPy"`), `:executable`, `:version` (of the Python
      package `snex`), `:encoder` (`"pure"`, `"native"`), `:os_pid`
    * `:uptime` in ms, `:requests_served`, `:requests_in_flight`, `:environments` alive
    * `:queued`: bytes that wait for Python to read them
    * `:memory`: resident memory of Python and all that it started, in bytes (0 where the system does not tell)

  For example

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> info = Snex.Interpreter.info(interpreter)
      iex> {info.environments, info.requests_in_flight, info.memory > 0}
      {1, 0, true}
      iex> Snex.destroy_env(env)
      iex> Snex.Interpreter.info(interpreter).environments
      0
  """
  @spec info(server()) :: map()
  def info(interpreter), do: GenServer.call(interpreter, :info)

  @doc """
  Stops an interpreter. Returns when Python and everything it started is gone.

  Calls under way return `{:error, %Snex.Error{code: :call_failed, reason: reason}}`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.Interpreter.stop(interpreter)
      :ok
  """
  @spec stop(server(), term(), timeout()) :: :ok
  def stop(interpreter, reason \\ :normal, timeout \\ :infinity),
    do: GenServer.stop(interpreter, reason, timeout)

  defmodule State do
    @moduledoc false
    # `launch` is the process that starts the worker, until it has; calls that come meanwhile are in `waiting`. `ended` holds
    # how the worker went down, once it has: there is nothing left to stop then. `stuck` holds the requests that have been
    # reported.
    @enforce_keys [:options, :calls, :output, :started]
    defstruct [
      :options,
      :calls,
      :output,
      :started,
      :launch,
      :os_pid,
      waiting: [],
      python: %{},
      stuck: [],
      ended: nil
    ]
  end

  @impl GenServer
  def init(options) do
    # So that terminate/2 runs, whoever ends this process: it waits until Python is gone.
    Process.flag(:trap_exit, true)
    if options.label, do: Process.set_label(options.label)

    state = %State{
      options: options,
      calls: Calls.start_link(self(), options.atoms, options.allow_send),
      output: Output.start_link(self(), options.output, options.atoms),
      started: System.monotonic_time(:millisecond)
    }

    state = %{state | launch: Launch.start_link(options, state.calls, state.output)}
    if options.sync_start?, do: await_launch(state), else: {:ok, state}
  end

  defp await_launch(%State{launch: launch} = state) do
    receive do
      {tag, _} = news when tag in @news ->
        await_launch(hand_on(news, state))

      {:snex_launched, ^launch, result} ->
        with {:error, error} <- launched(result, state) do
          abandon(error, state)
          {:stop, error}
        end

      {:EXIT, ^launch, reason} ->
        abandon(reason, state)
        {:stop, reason}
    end
  end

  # News of the worker that the launch waits for.
  defp hand_on(news, state) do
    send(state.launch, news)

    case news do
      {:snex_ended, down} -> %{state | ended: Error.from_down(down)}
      _other -> state
    end
  end

  defp launched({:error, error}, _state), do: {:error, error}

  # It was ready, and has ended since.
  defp launched({:ok, _os_pid, _fields}, %State{ended: error}) when error != nil, do: {:error, error}

  defp launched({:ok, os_pid, fields}, state) do
    Native.interpreter_open()
    python = Map.new(@python_fields, &{&1, fields[to_string(&1)]})
    state = %{state | launch: nil, os_pid: os_pid, python: python}
    Telemetry.interpreter_started(state.started, event_metadata(state))
    {:ok, state}
  end

  # There may be a worker, although it is not to be.
  defp abandon(reason, state), do: if(state.ended == nil, do: stop_worker(reason, state))

  @impl GenServer
  # Answered after the start.
  def handle_call(request, from, %State{launch: launch} = state) when launch != nil,
    do: {:noreply, %{state | waiting: [{request, from} | state.waiting]}}

  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}

  def handle_call(:info, _from, state) do
    figures =
      case Native.interpreter_info(self()) do
        {:ok, submitted, in_flight, environments, queued, memory} ->
          %{
            requests_served: submitted - in_flight,
            requests_in_flight: in_flight,
            environments: environments,
            queued: queued,
            memory: memory
          }

        :noproc ->
          %{}
      end

    fields = %{os_pid: state.os_pid, uptime: System.monotonic_time(:millisecond) - state.started}
    {:reply, state.python |> Map.merge(fields) |> Map.merge(figures), state}
  end

  def handle_call(:await_start, _from, state), do: {:reply, :ok, state}

  @impl GenServer
  def handle_info({tag, _} = news, %State{launch: launch} = state) when tag in @news and launch != nil,
    do: {:noreply, hand_on(news, state)}

  def handle_info({:snex_launched, launch, result}, %State{launch: launch} = state) do
    case launched(result, state) do
      {:ok, state} ->
        for {request, from} <- Enum.reverse(state.waiting) do
          {:reply, reply, _state} = handle_call(request, from, state)
          GenServer.reply(from, reply)
        end

        {:noreply, %{state | waiting: []}}

      {:error, error} ->
        {:stop, error, state}
    end
  end

  def handle_info({:snex_ended, down}, state) do
    error = Error.from_down(down)
    {:stop, error, %{state | ended: error}}
  end

  def handle_info({:snex_stuck, request}, state) do
    Logger.warning(
      "the interpreter #{inspect(self())} (Python #{state.os_pid}) is stuck: request #{request}, which nobody waits for, " <>
        "does not come back, although it was interrupted"
    )

    if state.options.on_stuck == :restart do
      # What is stuck does not hear a SIGTERM either.
      stop_worker(:stuck, put_in(state.options.stop_timeout, 0))
      error = %Error{code: :call_failed, reason: :stuck}
      {:stop, error, %{state | ended: error}}
    else
      {:noreply, %{state | stuck: [request | state.stuck]}}
    end
  end

  def handle_info({:EXIT, _pid, :normal}, state), do: {:noreply, state}
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, reason, state}
  def handle_info(_message, state), do: {:noreply, state}

  @impl GenServer
  def terminate(reason, state) do
    # It may be about to install packages, or to wait for a Python that does not come.
    if state.launch, do: kill(state.launch)
    abandon(reason, state)

    if state.os_pid,
      do: Telemetry.interpreter_stopped(state.started, Map.put(event_metadata(state), :reason, reason))
  end

  # What goes into the report of a crash. Scripts and environment variables, which may hold secrets, do not.
  @impl GenServer
  def format_status(status) do
    Map.replace_lazy(status, :state, &Map.take(&1, [:os_pid, :python, :started, :stuck]))
  end

  # Returns when it is gone: afterwards nobody starts a worker any more.
  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    end
  end

  defp event_metadata(state),
    do: %{interpreter: self(), os_pid: state.os_pid, label: state.options.label}

  defp stop_worker(reason, state) do
    if Native.interpreter_stop(:erlang.term_to_binary(reason), state.options.stop_timeout) == :ok do
      receive do
        {:snex_ended, _down} -> :ok
      end
    end
  end
end
