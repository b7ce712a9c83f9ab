defmodule Snex.Serde.Structs do
  @moduledoc false
  # What encoders make of structs.
  #
  # A walk in the native code cannot call Elixir. It reports the structs that it does not know. They are encoded here, and the next walk
  # takes the results in their place; it may report more. Structs without an encoder are remembered by the native code once the
  # protocol is consolidated and nobody can define one any more: data with only such structs is walked once.

  alias Snex.Arrow
  alias Snex.Error
  alias Snex.Native
  alias Snex.Serde.Encoder
  alias Snex.Serde.Stream
  alias Snex.Source

  @typedoc """
  Structs with what is to be written for them: another value, the struct itself as a dict, or what is written for structs without an
  encoder. Of a stream its reference, with its source.
  """
  @type encoded() :: [
          {struct(), {:value, term()} | {:plain | :default, struct()}} | {reference(), {:source, Source.t()}}
        ]

  defguardp explorer?(module) when module in [Explorer.DataFrame, Explorer.Series]

  @typedoc "How streams are encoded: with these encoding options, or not at all, and why."
  @type streams() :: tuple() | {:refused, String.t()}

  @doc """
  Adds what encoders make of `structs`. Raises `ArgumentError` for a stream where there may be none.
  """
  @spec encode([struct()], encoded(), pid(), streams()) :: {:ok, encoded()} | {:error, Error.t()}
  def encode(structs, encoded, interpreter, streams) do
    {met, others} = Enum.split_with(structs, &is_struct(&1, Stream))

    with {:ok, encoded} <- encode(Enum.uniq(others), encoded),
         do: open(Enum.uniq_by(met, & &1.reference), encoded, interpreter, streams)
  end

  defp open([], encoded, _interpreter, _streams), do: {:ok, encoded}
  defp open(_met, _encoded, _interpreter, {:refused, why}), do: raise(ArgumentError, why)

  defp open([stream | rest], encoded, interpreter, streams) do
    case Source.open(stream, interpreter, streams) do
      {:ok, source} ->
        open(rest, [{stream.reference, {:source, source}} | encoded], interpreter, streams)

      {:error, error} ->
        Source.settle(encoded, :ended)
        {:error, error}
    end
  end

  defp encode(structs, encoded) do
    {:ok, Enum.reduce(structs, encoded, &[{&1, encode_one(&1)} | &2])}
  catch
    kind, reason ->
      lines = for line <- format(kind, reason, __STACKTRACE__), do: line <> "\n"
      {:error, %Error{code: :call_failed, reason: reason(kind, reason, __STACKTRACE__), traceback: lines}}
  end

  defp encode_one(%module{} = struct) do
    impl = Encoder.impl_for!(struct)
    # Those of Explorer have to come here each time.
    if impl == Encoder.Any and Protocol.consolidated?(Encoder) and not explorer?(module),
      do: Native.struct_plain(module)

    case impl.encode(struct) do
      same when impl == Encoder.Any -> default(same)
      %^module{} = same -> {:plain, same}
      value -> {:value, value}
    end
  end

  # A tensor whose numbers are not in a binary: another backend of Nx has them, on a GPU perhaps. The tensor itself keeps them.
  defp default(%{__struct__: Nx.Tensor, data: %{__struct__: backend}} = tensor)
       when backend != Nx.BinaryBackend do
    %{data: %{__struct__: Nx.BinaryBackend}} = copy = apply(Nx, :backend_copy, [tensor, Nx.BinaryBackend])
    {:value, copy}
  end

  defp default(%{__struct__: module} = frame) when explorer?(module),
    do: {:value, Arrow.from_explorer(frame)}

  defp default(struct), do: {:default, struct}

  defp format(kind, reason, stacktrace) do
    kind |> Exception.format(reason, stacktrace) |> String.split("\n")
  end

  defp reason(:error, reason, stacktrace), do: Exception.normalize(:error, reason, stacktrace)
  defp reason(kind, reason, _stacktrace), do: {kind, reason}
end
