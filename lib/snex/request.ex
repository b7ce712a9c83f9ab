defmodule Snex.Request do
  @moduledoc false
  # The caller's side of a request: make it, submit it, deal with what comes until it has an end, give up in time.
  #
  # `submit` calls a NIF that walks the caller's terms and writes the frame. It tries again in three cases: too much is queued (after
  # a pause), the interpreter is still starting (after its start), or the terms contain structs with encoders (with what these return).
  # Each try has its own reference, and leaves no message with it behind.

  alias Snex.Arguments
  alias Snex.Code
  alias Snex.Error
  alias Snex.Interpreter.Down
  alias Snex.Native
  alias Snex.Object
  alias Snex.Output
  alias Snex.Serde.Decoder
  alias Snex.Serde.Structs
  alias Snex.Serde.Weight
  alias Snex.Source
  alias Snex.Trace

  @type submit() :: (reference(), Structs.encoded() -> outcome())

  @typedoc "What a NIF that submits a frame answers; see `outcome.rs`."
  @type outcome() ::
          :ok
          | {:ok, request :: pos_integer()}
          | {:ok, request :: pos_integer(), env_id :: pos_integer(), handle :: reference()}
          | {:overloaded, limit :: pos_integer()}
          | {:full, request :: pos_integer()}
          | {:structs, [struct()]}
          | :starting
          | :noproc
          | {:down, term()}
          | {:bad_key, term()}
          | {:foreign, Object.t()}
          | {:released, Object.t()}
          | {:error, term()}

  @typedoc "A point in time, in milliseconds of the monotonic clock."
  @type deadline() :: integer() | :infinity

  @typedoc "How a request is to be treated: until when it is waited for, whether it is cancelled then, where it prints to."
  @type options() :: %{
          optional(:timeout) => timeout(),
          optional(:streams) => Structs.streams(),
          optional(:retry) => non_neg_integer(),
          optional(:slot) => reference(),
          # What `Snex.Pool.Choice` says of a call that it has sent to another node, or that has come back: how long it may wait.
          optional(:sent) => map(),
          optional(:home) => timeout(),
          required(:deadline) => deadline(),
          required(:on_timeout) => :cancel | :leave,
          required(:output) => Output.destination() | nil
        }

  @typedoc "What Python is asked to do, as the native code takes it: `Eval` and `Invoke` in `request.rs`."
  @type t() :: %{:kind => :eval | :invoke | :map, optional(atom()) => term()}

  @typedoc "Where and how code runs, and how its result is returned: options of `Snex.pyeval/4`."
  @type how() :: %{
          :run => :loop | :thread | :auto,
          :returns => :auto | :value | :object,
          optional(:demand) => pos_integer(),
          optional(atom()) => term()
        }

  @doc """
  A request to run code. `env_id` is `nil` for a copy of the root environment.
  """
  @spec eval(non_neg_integer() | nil, Code.t(), map(), how()) :: t()
  def eval(env_id, %Code{} = code, vars, how) do
    {file, line} = Code.location(code)

    %{
      kind: :eval,
      environment: env_id,
      source: code.src,
      file: file,
      line: line,
      vars: vars,
      run: how.run,
      returns: how.returns,
      demand: Map.get(how, :demand),
      callers: Process.get(:"$callers"),
      traceparent: Trace.traceparent(),
      slot: nil
    }
  end

  @doc """
  A request to call the function that `path` leads to from `root` (a module's name, an object, or `nil` for a name in the environment),
  or, with `nil` for arguments, only to look at what is there. Of kind `:map`, it calls the function with each of several elements: `args` is
  then a list of these, and whether each of them is a list or tuple of arguments.
  """
  @spec invoke(
          non_neg_integer() | nil,
          String.t() | Object.t() | nil,
          String.t(),
          [term()] | nil,
          map(),
          how()
        ) :: t()
  def invoke(env_id, root, path, args, kwargs, how) do
    %{
      kind: :invoke,
      environment: env_id,
      root: root,
      path: path,
      args: args,
      kwargs: kwargs,
      run: how.run,
      returns: how.returns,
      demand: Map.get(how, :demand),
      callers: Process.get(:"$callers"),
      traceparent: Trace.traceparent(),
      slot: nil
    }
  end

  @doc """
  Runs a request on an interpreter of this node: the result, with the handles in it, as `Snex.Remote.run/5` wants them.
  """
  @spec run(pid(), t(), tuple(), options()) :: {{:ok, term()} | {:error, Error.t()}, [reference()]}
  def run(interpreter, request, encoding, options) do
    options = Map.put(options, :streams, encoding)

    case call(interpreter, asking(interpreter, request, encoding, options), options) do
      {:ok, value, handles, _accepted} -> {{:ok, value}, handles}
      {:error, error} -> {{:error, error}, []}
    end
  end

  @doc """
  A submission of `request`, see `submit/3`.
  """
  @spec asking(pid(), t(), tuple(), options()) :: submit()
  def asking(interpreter, request, encoding, options) do
    {weighed, normal, dirty} = parts(request)
    light? = Weight.light?(weighed)
    request = Map.put(request, :slot, options[:slot])

    fn reference, encoded ->
      nif = choose(light?, encoded, normal, dirty)
      # The time that is left when the frame is made: the caller may have waited for the start, or for room.
      request = Map.put(request, :time, time(options))

      interpreter
      |> nif.(reference, request, put_elem(encoding, 3, encoded))
      |> elsewhere(encoded, options)
    end
  end

  @doc """
  What a NIF has answered. An object of another interpreter is thrown to `Snex.Pool.Choice` if that has chosen this one.
  """
  @spec elsewhere(outcome(), Structs.encoded(), options()) :: outcome()
  def elsewhere({:foreign, object}, encoded, %{slot: _slot}) do
    Source.settle(encoded, :ended)
    throw({:snex_elsewhere, object})
  end

  def elsewhere(outcome, _encoded, _options), do: outcome

  # The parts of a request that may be of any size, and the functions that submit it.
  defp parts(%{kind: :eval} = eval) do
    {[eval.source, eval.file | eval.vars], &Native.request_eval/4, &Native.request_eval_dirty/4}
  end

  defp parts(invoke) do
    {[invoke.path, invoke.root, invoke.args | invoke.kwargs], &Native.request_invoke/4,
     &Native.request_invoke_dirty/4}
  end

  @doc """
  A submission of `term` by a NIF that encodes it, `nif.(interpreter, reference, term, encoding)`, or by the variant of
  that NIF for a dirty scheduler, which takes terms of any size.
  """
  @spec submission(pid(), nif, nif, term(), tuple()) :: submit()
        when nif: (pid(), reference(), term(), tuple() -> outcome())
  def submission(interpreter, normal, dirty, term, encoding) do
    light? = Weight.light?(term)

    fn reference, encoded ->
      nif = choose(light?, encoded, normal, dirty)
      nif.(interpreter, reference, term, put_elem(encoding, 3, encoded))
    end
  end

  @doc """
  The NIF to submit with: `normal` for a light term without structs that have been encoded, which are of any size.
  """
  @spec choose(boolean(), Structs.encoded(), nif, nif) :: nif when nif: fun()
  def choose(true, [], normal, _dirty), do: normal
  def choose(_light?, _encoded, _normal, dirty), do: dirty

  @doc """
  Submits a request and waits for its answer: `{:ok, value, handles, accepted}` with the handles in the value and what the NIF
  answered, or an error.
  """
  @spec call(pid(), submit(), options()) :: {:ok, term(), [reference()], tuple()} | {:error, Error.t()}
  def call(interpreter, submit, options), do: call(interpreter, submit, options, [])

  # Does not use `submit/3`: the VM skips the messages before the one that is waited for only if the function that makes the reference
  # calls the one that waits.
  defp call(interpreter, submit, options, encoded) do
    reference = make_ref()

    case submit.(reference, encoded) do
      accepted when elem(accepted, 0) == :ok ->
        result = await(interpreter, reference, accepted, options, %{})
        Source.settle(encoded, outcome(result, options.on_timeout))
        result

      refused ->
        %{deadline: deadline, streams: streams} = options

        with {:again, encoded} <- wait_or_end(interpreter, reference, refused, deadline, encoded, streams),
             do: call(interpreter, submit, options, encoded)
    end
  end

  # How a request has ended, for the streams in it.
  defp outcome({:error, %Error{code: :response_timeout}}, :cancel), do: :cancelled
  defp outcome({:error, %Error{code: :response_timeout}}, :leave), do: :left
  defp outcome(_answer, _on_timeout), do: :ended

  # `cut` holds, for each stream, the bytes of a character whose end has not been printed yet.
  defp await(interpreter, reference, accepted, options, cut) do
    receive do
      {^reference, :print, printed} ->
        options = %{options | output: options.output || Output.of(interpreter)}

        case print(interpreter, elem(accepted, 1), options.output, printed, cut, options.deadline) do
          {:ok, cut} -> await(interpreter, reference, accepted, options, cut)
          :timeout -> give_up(interpreter, reference, accepted, options)
        end

      {^reference, tag, detail} ->
        Output.flush(options.output, interpreter, cut)
        answer(tag, detail, accepted, interpreter)
    after
      time_left(options.deadline) ->
        Output.flush(options.output, interpreter, cut)
        give_up(interpreter, reference, accepted, options)
    end
  end

  @doc """
  Prints what a request has printed, as `Snex.Output.print/6`. More may come then.
  """
  @spec print(
          pid(),
          pos_integer(),
          Output.destination(),
          {:stdout | :stderr, binary()},
          map(),
          Output.patience()
        ) ::
          {:ok, map()} | :timeout
  def print(interpreter, request, output, {stream, bytes}, cut, patience) do
    with {:ok, cut} <- Output.print(output, interpreter, stream, bytes, cut, patience) do
      Native.print_read(interpreter, request)
      {:ok, cut}
    end
  end

  defp answer(:result, content, accepted, interpreter) do
    with {:ok, value, handles} <- Decoder.decode(content, [], interpreter),
         do: {:ok, value, handles, accepted}
  end

  defp answer(:result_safe, content, accepted, interpreter) do
    with {:ok, value, handles} <- Decoder.decode(content, [:safe], interpreter),
         do: {:ok, value, handles, accepted}
  end

  defp answer(:error, body, _accepted, _interpreter), do: {:error, Decoder.error(body)}
  defp answer(:down, down, _accepted, _interpreter), do: {:error, Down.error(down)}

  defp give_up(interpreter, reference, accepted, options) do
    forget(interpreter, reference, elem(accepted, 1), options.on_timeout == :cancel)
    {:error, %Error{code: :response_timeout}}
  end

  @doc """
  Submits a frame, and does not wait for what comes of it: `{:accepted, reference, accepted}` with the reference of the messages that will
  come, if there are any, and what the NIF answered, or an error. Streams in it end with the calling process.
  """
  @spec submit(pid(), submit(), deadline(), Structs.streams()) ::
          {:accepted, reference(), outcome()} | {:error, Error.t()}
  def submit(interpreter, submit, deadline, streams) do
    with {:accepted, reference, accepted, _encoded} <- submit(interpreter, submit, deadline, streams, []),
         do: {:accepted, reference, accepted}
  end

  defp submit(interpreter, submit, deadline, streams, encoded) do
    reference = make_ref()

    case submit.(reference, encoded) do
      accepted when accepted == :ok or elem(accepted, 0) == :ok ->
        {:accepted, reference, accepted, encoded}

      refused ->
        with {:again, encoded} <- wait_or_end(interpreter, reference, refused, deadline, encoded, streams),
             do: submit(interpreter, submit, deadline, streams, encoded)
    end
  end

  @doc """
  Submits a frame that has no answer. Streams in it go on without the calling process.
  """
  @spec cast(pid(), submit(), deadline(), Structs.streams()) :: :ok | {:error, Error.t()}
  def cast(interpreter, submit, deadline, streams) do
    with {:accepted, _reference, _ok, encoded} <- submit(interpreter, submit, deadline, streams, []),
         do: Source.settle(encoded, :left)
  end

  # Streams end at once if the frame that should take them to Python is not sent.
  defp wait_or_end(interpreter, reference, refused, deadline, encoded, streams) do
    with {:error, error} <- wait(interpreter, reference, refused, deadline, encoded, streams) do
      Source.settle(encoded, :ended)
      {:error, error}
    end
  catch
    kind, reason ->
      Source.settle(encoded, :ended)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  @doc """
  The point in time that is `timeout` milliseconds away.
  """
  @spec deadline(timeout()) :: deadline()
  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  # The time that is left, and the whole timeout, in ms. Python does not begin what it cannot do in that time. `nil` for a call that goes on
  # when its caller has given up.
  defp time(%{on_timeout: :cancel, timeout: timeout} = options) when is_integer(timeout),
    do: {time_left(options.deadline), timeout}

  defp time(_options), do: nil

  @doc """
  Milliseconds until a point in time.
  """
  @spec time_left(deadline()) :: timeout()
  def time_left(:infinity), do: :infinity
  def time_left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  @doc """
  Waits for what keeps a frame from being submitted, and says with what to try again.
  """
  @spec wait(
          pid(),
          reference(),
          tuple() | :starting | :noproc,
          deadline(),
          Structs.encoded(),
          Structs.streams()
        ) ::
          {:again, Structs.encoded()} | {:error, Error.t()}
  def wait(interpreter, reference, refused, deadline, encoded, streams)

  def wait(interpreter, _reference, {:structs, structs}, _deadline, encoded, streams) do
    with {:ok, encoded} <- Structs.encode(structs, encoded, interpreter, streams), do: {:again, encoded}
  end

  def wait(interpreter, reference, {:full, request}, deadline, encoded, _streams) do
    receive do
      {^reference, :writable, _} -> {:again, encoded}
      {^reference, :down, down} -> {:error, Down.error(down)}
    after
      time_left(deadline) ->
        forget(interpreter, reference, request, false)
        {:error, %Error{code: :response_timeout}}
    end
  end

  def wait(_interpreter, _reference, {:overloaded, limit}, _deadline, _encoded, _streams) do
    requests = if limit == 1, do: "1 request is", else: "#{limit} requests are"
    reason = "#{requests} under way, as many as :max_in_flight allows"
    {:error, %Error{code: :overloaded, reason: reason}}
  end

  def wait(interpreter, _reference, :starting, deadline, encoded, _streams) do
    GenServer.call(interpreter, :await_start, time_left(deadline))
    {:again, encoded}
  catch
    :exit, {:timeout, _call} -> {:error, %Error{code: :response_timeout}}
    :exit, {reason, _call} -> {:error, %Error{code: :call_failed, reason: reason}}
  end

  def wait(_interpreter, reference, {:down, down}, _deadline, _encoded, _streams) do
    flush(reference)
    {:error, Down.earlier(down)}
  end

  # A name may be registered before the process behind it has got as far as its worker.
  def wait(interpreter, reference, :noproc, deadline, encoded, streams) do
    if Process.alive?(interpreter) and
         :proc_lib.translate_initial_call(interpreter) == {Snex.Interpreter, :init, 1},
       do: wait(interpreter, reference, :starting, deadline, encoded, streams),
       else: {:error, %Error{code: :call_failed, reason: :noproc}}
  end

  def wait(_interpreter, _reference, {:bad_key, key}, _deadline, _encoded, _streams) do
    raise ArgumentError, Arguments.bad_name(key)
  end

  def wait(interpreter, _reference, {:foreign, object}, _deadline, _encoded, _streams) do
    raise ArgumentError,
          "#{inspect(object)} belongs to the interpreter #{inspect(object.interpreter)}, and cannot be used in " <>
            "#{inspect(interpreter)}. Copy it there with Snex.Object.copy/2"
  end

  def wait(_interpreter, _reference, {:released, object}, _deadline, _encoded, _streams),
    do: {:error, Object.not_found(object)}

  def wait(_interpreter, _reference, {:error, term}, _deadline, _encoded, _streams) do
    raise ArgumentError, "cannot be encoded for Python: #{inspect(term)}"
  end

  defp forget(interpreter, reference, request, cancel?) do
    Native.request_forget(interpreter, request, cancel?)
    flush(reference)
  end

  # Messages may have come just before their request was forgotten; none comes after.
  defp flush(reference) do
    receive do
      {^reference, _tag, _value} -> flush(reference)
    after
      0 -> :ok
    end
  end
end
