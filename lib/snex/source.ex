defmodule Snex.Source do
  @moduledoc false
  # Streams of Elixir's that Python iterates: what becomes of a `Snex.Serde.stream/2` when it is encoded.
  #
  # Each has two processes. The *feeder* (`Snex.Source.Feeder`), on the interpreter's node, belongs to a source of the interpreter:
  # it gets what Python asks for, and submits items. The *producer* (`Snex.Source.Producer`) runs the enumerable, on the node where the
  # stream was made. It starts when Python asks for items for the first time.
  #
  # The source ends with the enumerable, when Python wants no more, with the request that has brought it to Python, or when the
  # interpreter, the feeder or the producer goes. However it ends, nothing is left of it: Python is told, and the producer is asked to end, and
  # killed if it does not.

  alias Snex.Error
  alias Snex.Interpreter.Origin
  alias Snex.Remote
  alias Snex.Serde.Stream
  alias Snex.Source.Feeder
  alias Snex.Source.Producer

  @typedoc "Of an open source: its number, its demand, its feeder."
  @type t() :: {pos_integer(), pos_integer(), pid()}

  @doc """
  Opens a source, for the calling process. It ends with that process, until it is settled.
  """
  @spec open(Stream.t(), pid(), encoding :: tuple()) :: {:ok, t()} | {:error, Error.t()}
  def open(%Stream{} = stream, interpreter, encoding) do
    options = %{
      interpreter: interpreter,
      stream: stream,
      encoding: over(stream.encoding, encoding),
      owner: self(),
      origin: origin()
    }

    case Feeder.start(options) do
      {:ok, feeder, source} -> {:ok, {source, stream.demand, feeder}}
      :noproc -> {:error, %Error{code: :call_failed, reason: :noproc}}
    end
  end

  # A process that runs here for a call from another node stands for the caller there.
  @spec origin() :: Producer.origin()
  defp origin do
    case Remote.caller() do
      nil -> {self(), Origin.surroundings()}
      caller -> {caller, nil}
    end
  end

  # Options of the stream, and of the call where it leaves them out.
  defp over(stream, call) do
    [Tuple.to_list(stream), Tuple.to_list(call)]
    |> Enum.zip_with(fn [own, of_call] -> own || of_call end)
    |> List.to_tuple()
    |> put_elem(3, [])
  end

  @doc """
  Says what has become of the frame that the sources were opened for, or of its request:

    * `:ended` - there will be no request, or it is answered.
    * `:cancelled` - nobody waits for it, and Python is to end it.
    * `:left` - it goes on without the process that has opened them, and they end with it in Python.
  """
  @spec settle([{term(), {atom(), term()}}], :ended | :cancelled | :left) :: :ok
  def settle(encoded, how) do
    for {_reference, {:source, {_source, _demand, feeder}}} <- encoded, do: Feeder.settle(feeder, how)
    :ok
  end
end
