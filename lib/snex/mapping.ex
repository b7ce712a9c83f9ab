defmodule Snex.Mapping do
  @moduledoc false
  # `Snex.map/4`: many calls of one function, each with an element of an enumerable.
  #
  # The calling process enumerates. Each frame is a request of its own, with as many elements as Python can deal with in a short time.
  # Python makes the calls one after the other. After a slice of time it answers with the results so far, and with the number of
  # elements that would fit into a slice. The remaining elements are sent again. So the size of the frames follows the duration of the
  # calls, and no element waits long for the others in its frame.
  #
  # If a frame cannot be encoded, or loaded in Python, no call has been made. The element that is to blame is found by halving the frame.
  #
  # With `:concurrency`, frames are sent by that many processes, which end with the one that enumerates.

  alias Snex.Env
  alias Snex.Error
  alias Snex.Heap
  alias Snex.Interpreter
  alias Snex.Interpreter.Origin
  alias Snex.Invoke
  alias Snex.Pool
  alias Snex.Remote
  alias Snex.Request
  alias Snex.Serde.Decoder
  alias Snex.Telemetry

  @type result() :: {:ok, term()} | {:error, Error.t()}

  # How long the elements of a frame wait for each other, in ms.
  @patience 1

  # A frame has about so many bytes of elements.
  @bytes 256 * 1024

  # For at least so many results, the heap gets room at once, this many words for each.
  @many 10_000
  @words 8

  @doc """
  An enumerable of the results, or of what `fun` makes of them. `opts` are those that `Snex.CallOptions.map!/1` has checked.
  """
  @spec stream(
          Env.t() | Interpreter.server(),
          Invoke.root(),
          Invoke.path(),
          Enumerable.t(),
          map(),
          (result() -> term()) | nil
        ) :: Enumerable.t()
  def stream(where, root, path, enumerable, opts, fun) do
    begin = beginning(where, root, path, enumerable, opts)
    # Each enumeration starts anew.
    stream = fn acc, reducer -> nil |> begin.() |> Stream.concat() |> Enumerable.reduce(acc, reducer) end
    if fun, do: Stream.map(stream, fun), else: stream
  end

  @doc """
  A list of the same. The timeout is that of all together.
  """
  @spec list(
          Env.t() | Interpreter.server(),
          Invoke.root(),
          Invoke.path(),
          Enumerable.t(),
          map(),
          (result() -> term()) | nil
        ) :: [term()]
  def list(where, root, path, enumerable, opts, fun) do
    begin = beginning(where, root, path, enumerable, opts)

    list = fn ->
      results = begin.(Request.deadline(opts.timeout))
      if fun, do: Enum.flat_map(results, &Enum.map(&1, fun)), else: Enum.concat(results)
    end

    count = count(enumerable)
    if count < @many, do: list.(), else: Heap.with_room(count * @words, list)
  end

  # Where it costs nothing to know.
  defp count(list) when is_list(list), do: length(list)
  defp count(%Range{} = range), do: Range.size(range)
  defp count(_enumerable), do: 0

  # A function that begins an enumeration, of lists of results.
  defp beginning(where, root, path, enumerable, opts) do
    {interpreter, env_id} = Invoke.target(where)
    {root, path} = Invoke.split(root, path)
    # An error that need not wait until then.
    _ = Remote.locate(interpreter)

    fn deadline ->
      request = %{Request.invoke(env_id, root, path, nil, opts.kwargs, opts) | kind: :map}

      lists(enumerable, %{
        where: where,
        interpreter: interpreter,
        # What Python calls belongs to this process.
        request: %{request | callers: [self() | request.callers || []]},
        opts: opts,
        # That of a whole list. `nil` for a stream: each of its requests has its own.
        deadline: deadline,
        # How many elements the next frame may have.
        limit: :atomics.new(1, [])
      })
    end
  end

  defp lists(enumerable, job) do
    :atomics.put(job.limit, 1, 1)

    enumerable
    |> frames(job)
    |> send_all(job, job.opts.concurrency || Pool.capacity(job.interpreter))
    |> Stream.transform(
      fn -> %{span: Telemetry.map_started(job.where), elements: 0, errors: 0, halted: true} end,
      fn results, state -> {[results], note(state, results)} end,
      fn state -> {[], %{state | halted: false}} end,
      fn state -> Telemetry.map_stopped(state.span, Map.take(state, [:elements, :errors]), state.halted) end
    )
  end

  defp note(%{span: nil} = state, _results), do: state

  defp note(state, results) do
    errors = Enum.count(results, &match?({:error, _error}, &1))
    %{state | elements: state.elements + length(results), errors: state.errors + errors}
  end

  defp send_all(frames, job, 1), do: Stream.flat_map(frames, &results(&1, job))

  defp send_all(frames, job, concurrency) do
    owner = self()
    surroundings = Origin.surroundings()

    frames
    |> Task.async_stream(
      fn elements ->
        Origin.belong(owner, surroundings)
        elements |> results(job) |> Enum.concat()
      end,
      max_concurrency: concurrency,
      timeout: :infinity
    )
    |> Stream.map(fn {:ok, results} -> results end)
  end

  # ---- The elements of each frame -----------------------------------------------------------

  defp frames(enumerable, job) do
    Stream.resource(
      fn -> &Enumerable.reduce(enumerable, &1, fn element, frame -> collect(element, frame) end) end,
      &next_frame(&1, job),
      &close/1
    )
  end

  # The end of the enumeration is in the accumulator before it takes effect: what is raised does not reach `close/1`.
  defp next_frame({:raised, kind, reason, stacktrace}, _job), do: :erlang.raise(kind, reason, stacktrace)
  defp next_frame(nil, _job), do: {:halt, nil}

  defp next_frame(continue, job) do
    limit = :atomics.get(job.limit, 1)
    until = System.monotonic_time() + System.convert_time_unit(@patience, :millisecond, :native)

    try do
      continue.({:cont, {[], limit, @bytes, until}})
    catch
      kind, reason -> {[], {:raised, kind, reason, __STACKTRACE__}}
    else
      {:suspended, frame, continue} -> {frame(frame, job), continue}
      {_done_or_halted, frame} -> {frame(frame, job), nil}
    end
  end

  defp collect(element, {elements, left, bytes, until}) do
    bytes = bytes - bytes(element)
    frame = {[element | elements], left - 1, bytes, until}

    if left == 1 or bytes <= 0 or System.monotonic_time() > until,
      do: {:suspend, frame},
      else: {:cont, frame}
  end

  defp bytes(element) when is_integer(element) or is_float(element) or is_atom(element), do: 0
  defp bytes(element) when is_binary(element), do: byte_size(element)
  defp bytes(element), do: :erlang.external_size(element)

  defp frame({[], _left, _bytes, _until}, _job), do: []

  defp frame({elements, left, _bytes, until}, job) do
    # No element is to wait for one that comes late.
    if left > 0 and System.monotonic_time() > until, do: :atomics.put(job.limit, 1, 1)
    [Enum.reverse(elements)]
  end

  defp close(continue) when is_function(continue), do: continue.({:halt, {[], 0, 0, 0}})
  defp close(_ended), do: :ok

  # ---- The results of a frame ---------------------------------------------------------------

  # Lists of results, each when it has come.
  defp results(elements, job), do: Stream.unfold(elements, &next_results(&1, job))

  defp next_results([], _job), do: nil

  defp next_results(elements, job) do
    limit = :atomics.get(job.limit, 1)
    length = length(elements)
    {count, now} = if length > limit, do: {limit, Enum.take(elements, limit)}, else: {length, elements}

    case ask(now, count, job) do
      {:ok, fit, done, results} ->
        :atomics.put(job.limit, 1, fit |> min(2 * limit) |> min(job.opts.demand))
        {results, rest(elements, done)}

      {:refused, _error} when count > 1 ->
        :atomics.put(job.limit, 1, div(count, 2))
        next_results(elements, job)

      {_refused_or_error, error} ->
        {List.duplicate({:error, error}, count), rest(elements, count)}
    end
  end

  defp rest(elements, 0), do: elements
  defp rest([_element | elements], count), do: rest(elements, count - 1)

  # Results of the first elements, or `:refused`: nothing has been called, and fewer elements may be taken.
  defp ask(elements, count, %{opts: opts} = job) do
    deadline = job.deadline || Request.deadline(opts.timeout)

    if Request.time_left(deadline) == 0 do
      failed({:error, %Error{code: :response_timeout}}, job)
    else
      request = %{job.request | args: {elements, opts.unpack}}
      options = %{deadline: deadline, on_timeout: :cancel, output: opts.output}
      answer = Remote.run(job.interpreter, Request, :run, [request, opts.encoding_opts], options)
      Env.hold({job.where, request})
      answer(answer, count, job)
    end
  rescue
    error in ArgumentError -> {:refused, %Error{code: :call_failed, reason: error}}
  end

  defp answer({:ok, {0, [error]}}, _count, _job), do: {:refused, Decoder.error_in(error)}

  defp answer({:ok, {fit, runs}}, count, _job) when is_integer(fit) and fit > 0 and length(runs) >= 0 do
    results = Enum.flat_map(runs, &run/1)

    case length(results) do
      done when done in 1..count//1 -> {:ok, fit, done, results}
      done -> {:error, garbage("#{done} results for #{count} elements")}
    end
  end

  defp answer({:ok, other}, _count, _job), do: {:error, garbage(inspect(other, limit: 10))}
  # Its encoder has raised, or it is an object that has been released.
  defp answer({:error, %Error{code: :call_failed, traceback: [_ | _]} = error}, _count, _job),
    do: {:refused, error}

  defp answer({:error, %Error{code: :object_not_found} = error}, _count, _job), do: {:refused, error}
  defp answer({:error, _error} = failed, _count, job), do: failed(failed, job)

  # Neither of the two has an improper tail.
  defp run(values) when length(values) >= 0, do: for(value <- values, do: {:ok, value})
  defp run(error), do: [{:error, Decoder.error_in(error)}]

  defp failed(failed, job), do: Error.in_call(failed, job.where, job.opts.timeout)

  defp garbage(what), do: %Error{code: :internal_error, reason: "an invalid answer to a map: #{what}"}
end
