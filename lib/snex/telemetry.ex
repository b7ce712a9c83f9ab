defmodule Snex.Telemetry do
  @moduledoc """
  The events that Snex emits through `:telemetry`, if the application has that library.

  Without `:telemetry`, no events are emitted; each call costs one check. The events of a call are emitted in the
  calling process, on its own node, even if the interpreter is on another node.

      :telemetry.attach("slow-python", [:snex, :call, :stop], &MyApp.Metrics.handle/4, nil)

  ## Calls

  Emitted around each `Snex.pyeval/4`, `Snex.make_env/3`, `Snex.call/4` and `Snex.get/3`, with any of their arities, and
  each function of `Snex.Object` that calls Python, if the arguments are valid.

  ### `[:snex, :call, :start]`

  | measurement | |
  |---|---|
  | `:system_time`, `:monotonic_time` | in native units |

  | metadata | |
  |---|---|
  | `:function` | `:pyeval`, `:make_env`, `:call` or `:get` |
  | `:interpreter` | what the call was given: a pid, a name, `{name, node}`, ... |
  | `:env` | the `Snex.Env` that the call was given, or `nil` |
  | `:telemetry_span_context` | a reference that all events of a call share |

  ### `[:snex, :call, :stop]`

  The call has returned.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | in native units |

  The metadata of the start, and

  | metadata | |
  |---|---|
  | `:error` | the `Snex.Error` that was returned, or `nil` after `{:ok, value}` |

  ### `[:snex, :call, :exception]`

  The call has raised, for instance because a variable cannot be encoded. Errors in Python are returned, and are not
  exceptions.

  The measurements of a stop. The metadata of the start, and

  | metadata | |
  |---|---|
  | `:kind` | `:error`, `:exit` or `:throw` |
  | `:reason`, `:stacktrace` | of the exception |

  ## Streams

  Emitted around each enumeration of a stream from `Snex.stream/4` or `Snex.Object.stream/2`, in the process that
  enumerates it.

  ### `[:snex, :stream, :start]`

  The measurements and metadata of the start of a call. `:function` is `:stream`.

  ### `[:snex, :stream, :stop]`

  The enumeration has ended. Not emitted for an enumeration that is suspended and never resumed.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | in native units |
  | `:items` | how many items have been received; an enumeration that ends early may not have used the last of them |

  The metadata of the start, and

  | metadata | |
  |---|---|
  | `:error` | the `Snex.Error` that was raised, or `nil` |
  | `:halted` | whether the enumeration ended before the last item without a `Snex.Error`: the consumer wanted no more items, or raised |

  ### `[:snex, :stream, :exception]`

  Emitted instead of a stop if the stream cannot start, for instance because a variable cannot be encoded. The
  measurements of a stop, and the metadata of the exception of a call.

  ## Maps

  Emitted around each `Snex.map/4`, or around each enumeration of the stream that it returns with `stream: true`, in the
  process that enumerates.

  ### `[:snex, :map, :start]`

  The measurements and metadata of the start of a call. `:function` is `:map`.

  ### `[:snex, :map, :stop]`

  The map has ended. Not emitted for an enumeration that is suspended and never resumed.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | in native units |
  | `:elements` | how many results there were |
  | `:errors` | how many of these were errors |

  The metadata of the start, and

  | metadata | |
  |---|---|
  | `:halted` | whether the map ended before the last element: the consumer wanted no more results, or it or the enumerable raised |

  ## Pools

  Emitted in the process of the call, on the pool's node; `recycle` is emitted in the pool's process.

  ### `[:snex, :pool, :queue]`

  A call has waited for an interpreter of a `Snex.Pool`. Not emitted for a call that finds an interpreter with room.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | how long it has waited, in native units |
  | `:waiting` | how many calls still wait |

  | metadata | |
  |---|---|
  | `:pool` | its pid |
  | `:error` | the `Snex.Error` that is returned, or `nil` if the call runs now |

  ### `[:snex, :pool, :overload]`

  Emitted in addition if that error has the code `:overloaded`: the queue was full, or the call has waited too long.
  Measurements and metadata are the same.

  ### `[:snex, :pool, :forward]`

  A call of a pool with `scope: :cluster` has found no room, and goes to another node. If it waits there, that node
  emits the event.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | how long it had waited until then, in native units |

  | metadata | |
  |---|---|
  | `:pool` | its pid |
  | `:to` | the pid of the pool that it goes to |

  ### `[:snex, :pool, :recycle]`

  An interpreter of a pool has been replaced: it takes no more calls, and its substitute takes them instead.

  | measurement | |
  |---|---|
  | `:duration`, `:monotonic_time` | how long the substitute took to start, in native units |
  | `:calls`, `:age` | how many calls the old interpreter ran, and its age in native units |

  | metadata | |
  |---|---|
  | `:pool`, `:name` | the pid of the pool, and its option `:name` |
  | `:interpreter`, `:substitute` | the pid of the old interpreter, and of the new one |
  | `:reason` | `:requests`, `:memory` or `:age` for these limits, `:restart` for `Snex.Pool.restart/1` |

  ## Interpreters

  Emitted in the interpreter process.

  ### `[:snex, :interpreter, :start]`

  Python has started, and has run its init script.

  | measurement | |
  |---|---|
  | `:system_time`, `:monotonic_time` | in native units |
  | `:duration` | of the start, in native units |

  | metadata | |
  |---|---|
  | `:interpreter` | its pid |
  | `:os_pid` | Python's process id in the operating system |
  | `:label` | the option `:label` |

  ### `[:snex, :interpreter, :stop]`

  Python has been stopped, or has ended by itself. Not emitted if Python never finished its start, nor if the
  interpreter process is killed.

  | measurement | |
  |---|---|
  | `:monotonic_time` | in native units |
  | `:duration` | since the beginning of the start, in native units |

  The metadata of the start, and

  | metadata | |
  |---|---|
  | `:reason` | the exit reason of the interpreter process |

  ## OpenTelemetry

  If the VM has the application `:opentelemetry_api`, the span of the calling process travels with each call. If the
  package `opentelemetry` is loaded in Python, the code runs within that span, so spans that it makes are children of
  the caller's. In the other direction, Elixir functions called by Python run within the span that they were called
  from. Nothing has to be configured, and without either of the two, nothing is done.
  """

  alias Snex.Env
  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Pool.Queue

  @doc false
  # Runs a call, and emits its events.
  @spec call(:pyeval | :make_env | :call | :get, Env.t() | Interpreter.server(), (-> result)) :: result
        when result: {:ok, term()} | {:error, Error.t()}
  def call(function, target, fun) do
    if present?(), do: span(function, target, fun), else: fun.()
  end

  @doc false
  # `started` is in milliseconds.
  @spec interpreter_started(integer(), map()) :: :ok
  def interpreter_started(started, metadata) do
    measurements = Map.put(since(native(started)), :system_time, System.system_time())
    emit([:snex, :interpreter, :start], measurements, metadata)
  end

  @doc false
  @spec interpreter_stopped(integer(), map()) :: :ok
  def interpreter_stopped(started, metadata),
    do: emit([:snex, :interpreter, :stop], since(native(started)), metadata)

  @doc false
  # Emits that a call has waited for an interpreter of a pool: `:served`, or the error that it returns.
  @spec pool_waited(pid(), integer(), :served | {:error, Error.t()} | :noproc) :: :ok
  def pool_waited(pool, begun, outcome) do
    if present?() do
      measurements = Map.put(since(begun), :waiting, Queue.waiting(pool))
      metadata = %{pool: pool, error: (outcome != :served && error(outcome)) || nil}
      emit([:snex, :pool, :queue], measurements, metadata)

      with {:error, %Error{code: :overloaded}} <- outcome,
           do: emit([:snex, :pool, :overload], measurements, metadata)
    end

    :ok
  end

  @doc false
  @spec pool_forwarded(pid(), integer(), pid()) :: :ok
  def pool_forwarded(pool, begun, other) do
    if present?(), do: emit([:snex, :pool, :forward], since(begun), %{pool: pool, to: other})
    :ok
  end

  @doc false
  @spec pool_recycled(integer(), map(), map()) :: :ok
  def pool_recycled(begun, measurements, metadata),
    do: emit([:snex, :pool, :recycle], Map.merge(since(native(begun)), measurements), metadata)

  @typedoc false
  @opaque span() :: {integer(), map()} | nil

  @doc false
  # Emits the first event of a stream.
  @spec stream_started(Env.t() | Interpreter.server()) :: span()
  def stream_started(target), do: if(present?(), do: begin(:stream, :stream, target))

  @doc false
  # Emits the last one.
  @spec stream_stopped(span(), :stop | :exception, non_neg_integer(), map()) :: :ok
  def stream_stopped(nil, _event, _items, _metadata), do: :ok

  def stream_stopped({started, metadata}, event, items, more),
    do: emit([:snex, :stream, event], Map.put(since(started), :items, items), Map.merge(metadata, more))

  @doc false
  # Emits the first event of a map.
  @spec map_started(Env.t() | Interpreter.server()) :: span()
  def map_started(target), do: if(present?(), do: begin(:map, :map, target))

  @doc false
  # Emits the last one.
  @spec map_stopped(span(), map(), boolean()) :: :ok
  def map_stopped(nil, _counts, _halted), do: :ok

  def map_stopped({started, metadata}, counts, halted),
    do: emit([:snex, :map, :stop], Map.merge(since(started), counts), Map.put(metadata, :halted, halted))

  defp span(function, target, fun) do
    {started, metadata} = begin(:call, function, target)

    try do
      fun.()
    catch
      kind, reason ->
        failure = %{kind: kind, reason: reason, stacktrace: __STACKTRACE__}
        emit([:snex, :call, :exception], since(started), Map.merge(metadata, failure))
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result ->
        emit([:snex, :call, :stop], since(started), Map.put(metadata, :error, error(result)))
        result
    end
  end

  defp begin(what, function, target) do
    {interpreter, env} = if is_struct(target, Env), do: {target.interpreter, target}, else: {target, nil}
    started = System.monotonic_time()

    metadata = %{
      function: function,
      interpreter: interpreter,
      env: env,
      telemetry_span_context: make_ref()
    }

    emit([:snex, what, :start], %{system_time: System.system_time(), monotonic_time: started}, metadata)
    {started, metadata}
  end

  defp error({:ok, _value}), do: nil
  defp error({:error, error}), do: error

  defp native(milliseconds), do: System.convert_time_unit(milliseconds, :millisecond, :native)

  defp since(started) do
    now = System.monotonic_time()
    %{duration: now - started, monotonic_time: now}
  end

  # Whoever has attached a handler has loaded the module: it needs no loading from here, and the answer is never out of date.
  defp present?, do: :erlang.function_exported(:telemetry, :execute, 3)

  # Nobody here depends on it.
  @compile {:no_warn_undefined, :telemetry}
  @dialyzer {:no_unknown, emit: 3}
  defp emit(event, measurements, metadata) do
    if present?(), do: :telemetry.execute(event, measurements, metadata), else: :ok
  end
end
