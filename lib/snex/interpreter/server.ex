defmodule Snex.Interpreter.Server do
  @moduledoc false
  # The process of an interpreter: it owns the worker, from its start to its end. Data does not pass through here.

  use GenServer

  alias Snex.Error
  alias Snex.Interpreter.Calls
  alias Snex.Interpreter.Copy
  alias Snex.Interpreter.Down
  alias Snex.Interpreter.Launch
  alias Snex.Interpreter.Output
  alias Snex.Interpreter.Starter
  alias Snex.Native
  alias Snex.Telemetry

  require Logger

  # The messages of a worker to its owner.
  @worker_messages [:snex_started, :snex_ready, :snex_ended]

  # What Python says of itself when it is ready.
  @python_fields [:python, :implementation, :executable, :version, :encoder]

  defmodule State do
    @moduledoc false
    # `launch` is the process that starts the worker, until it has; `status` is how far it is, and calls that wait for it are in
    # `waiting`. `starter` is the process that waits in `start_link/1`, until it is answered. `ended` holds how the worker went
    # down, once it has: there is nothing left to stop then. `failure` is why a start has failed. `stuck` holds the requests that
    # hold up all others, each with the timer at whose end the interpreter is restarted.
    @enforce_keys [:options, :calls, :output, :started]
    defstruct [
      :options,
      :calls,
      :output,
      :started,
      :starter,
      :launch,
      :os_pid,
      :failure,
      status: :starting,
      waiting: [],
      python: %{},
      stuck: %{},
      ended: nil
    ]
  end

  @impl GenServer
  def init({options, parent}) do
    # So that terminate/2 runs however this process ends: it waits until Python is gone.
    Process.flag(:trap_exit, true)
    if options.label, do: Process.set_label(options.label)
    if not options.sync_start?, do: Starter.started(parent)

    calls = Calls.start_link(self(), options.atoms, options.allow_send)
    output = Output.start_link(self(), options.output, options.atoms)

    {:ok,
     %State{
       options: options,
       calls: calls,
       output: output,
       started: System.monotonic_time(:millisecond),
       starter: if(options.sync_start?, do: parent),
       launch: Launch.start_link(options, calls, output),
       python: python(%{})
     }}
  end

  @impl GenServer
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}
  def handle_call(:info, _from, state), do: {:reply, info(state), state}
  def handle_call(:template, _from, state), do: {:reply, Copy.template(state.options, state.python), state}

  def handle_call(:await_start, from, %State{launch: launch} = state) when launch != nil,
    do: {:noreply, %{state | waiting: [from | state.waiting]}}

  def handle_call(:await_start, _from, state), do: {:reply, :ok, state}

  @impl GenServer
  # A message of the worker, for which the launch process waits.
  def handle_info({tag, detail} = message, %State{launch: launch} = state)
      when tag in @worker_messages and launch != nil do
    send(launch, message)

    case tag do
      :snex_started -> {:noreply, %{state | os_pid: detail}}
      :snex_ready -> {:noreply, state}
      :snex_ended -> {:noreply, %{state | ended: Down.error(detail)}}
    end
  end

  def handle_info({:snex_status, launch, status}, %State{launch: launch} = state),
    do: {:noreply, %{state | status: status}}

  def handle_info({:snex_launched, launch, {:error, error}}, %State{launch: launch} = state),
    do: fail(error, state)

  # It was ready, and has ended since.
  def handle_info({:snex_launched, launch, {:ok, _fields}}, %State{launch: launch, ended: error} = state)
      when error != nil,
      do: fail(error, state)

  def handle_info({:snex_launched, launch, {:ok, fields}}, %State{launch: launch} = state) do
    Native.interpreter_open()
    state = %{state | launch: nil, status: :running, python: python(fields)}
    Telemetry.interpreter_started(state.started, event_metadata(state))
    if state.starter, do: Starter.started(state.starter)
    for from <- Enum.reverse(state.waiting), do: GenServer.reply(from, :ok)
    {:noreply, %{state | starter: nil, waiting: []}}
  end

  # It sends how it has ended, unless it was killed.
  def handle_info({:EXIT, launch, reason}, %State{launch: launch} = state) when reason != :normal,
    do: fail(%Error{code: :call_failed, reason: reason}, state)

  def handle_info({:snex_ended, down}, state) do
    error = Down.error(down)
    {:stop, error, %{state | ended: error}}
  end

  def handle_info({:snex_stuck, request}, state) do
    Logger.warning(
      "the interpreter #{inspect(self())} (Python #{state.os_pid}) is stuck: request #{request}, which nobody waits for, " <>
        "does not return although it was interrupted" <> next_step(state.options.on_stuck)
    )

    timer =
      case state.options.on_stuck do
        :report -> nil
        {:restart, patience} -> Process.send_after(self(), {:still_stuck, request}, patience)
      end

    {:noreply, put_in(state.stuck[request], timer)}
  end

  def handle_info({:snex_unstuck, request}, state) do
    {timer, stuck} = Map.pop(state.stuck, request)
    if timer, do: Process.cancel_timer(timer)
    {:noreply, %{state | stuck: stuck}}
  end

  def handle_info({:still_stuck, request}, %State{stuck: stuck} = state) when is_map_key(stuck, request) do
    # What is stuck does not hear a SIGTERM either.
    stop_worker(:stuck, put_in(state.options.stop_timeout, 0))
    error = %Error{code: :call_failed, reason: :stuck}
    {:stop, error, %{state | ended: error}}
  end

  def handle_info({:EXIT, _pid, :normal}, state), do: {:noreply, state}
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, reason, state}
  def handle_info(_message, state), do: {:noreply, state}

  @impl GenServer
  def terminate(reason, state) do
    # It may be installing packages, or waiting for a Python that does not come.
    if state.launch, do: Launch.stop(state.launch)
    # There may be a worker, although it is not to be.
    if state.ended == nil, do: stop_worker(reason, state)

    if state.starter,
      do: Starter.failed(state.starter, state.failure || %Error{code: :call_failed, reason: reason})

    if state.launch == nil,
      do: Telemetry.interpreter_stopped(state.started, Map.put(event_metadata(state), :reason, reason))
  end

  # What goes into the report of a crash. Scripts and environment variables, which may hold secrets, do not.
  @impl GenServer
  def format_status(status) do
    Map.replace_lazy(status, :state, &Map.take(&1, [:os_pid, :python, :started, :status, :stuck]))
  end

  # The caller of `start_link/1` gets the error; a report of it would repeat it.
  defp fail(error, %State{starter: nil} = state), do: {:stop, error, state}
  defp fail(error, state), do: {:stop, {:shutdown, error}, %{state | failure: error}}

  defp python(fields), do: Map.new(@python_fields, &{&1, fields[to_string(&1)]})

  defp info(state) do
    {served, in_flight, environments, objects, queued, memory, shared} =
      case Native.interpreter_info(self()) do
        {:ok, submitted, in_flight, environments, objects, queued, {memory, shared}} ->
          {submitted - in_flight, in_flight, environments, objects, queued, memory, shared}

        :noproc ->
          {0, 0, 0, 0, 0, 0, nil}
      end

    Map.merge(state.python, %{
      status: state.status,
      os_pid: state.os_pid,
      template: state.options.template,
      uptime: System.monotonic_time(:millisecond) - state.started,
      requests_served: served,
      requests_in_flight: in_flight,
      environments: environments,
      objects: objects,
      queued: queued,
      memory: memory,
      shared_memory: shared
    })
  end

  defp next_step(:report), do: ""
  defp next_step({:restart, 0}), do: "; it is restarted"

  defp next_step({:restart, patience}),
    do: "; it is restarted unless the request returns within #{patience} ms"

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
