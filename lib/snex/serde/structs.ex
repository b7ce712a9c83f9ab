defmodule Snex.Serde.Structs do
  @moduledoc false
  # What encoders make of structs.
  #
  # A walk cannot call Elixir. It reports the structs that it does not know, they are encoded here, and the next walk takes
  # the results in their place, which may report more. Structs without an encoder are remembered by the native code once the
  # protocol is consolidated and nobody can define one any more: data with only such structs is walked once.

  alias Snex.Error
  alias Snex.Native
  alias Snex.Serde.Encoder

  @typedoc "Structs with what is to be written for them: another value, or the struct itself as a dict."
  @type encoded() :: [{struct(), {:value, term()} | {:plain, struct()}}]

  @doc """
  Adds what encoders make of `structs`.
  """
  @spec encode([struct()], encoded()) :: {:ok, encoded()} | {:error, Error.t()}
  def encode(structs, encoded) do
    {:ok, Enum.reduce(Enum.uniq(structs), encoded, &[{&1, encode_one(&1)} | &2])}
  catch
    kind, reason ->
      lines = for line <- format(kind, reason, __STACKTRACE__), do: line <> "\n"
      {:error, %Error{code: :call_failed, reason: reason(kind, reason, __STACKTRACE__), traceback: lines}}
  end

  defp encode_one(%module{} = struct) do
    impl = Encoder.impl_for!(struct)
    if impl == Encoder.Any and Protocol.consolidated?(Encoder), do: Native.struct_plain(module)

    case impl.encode(struct) do
      %^module{} = same -> {:plain, same}
      value -> {:value, value}
    end
  end

  defp format(kind, reason, stacktrace) do
    kind |> Exception.format(reason, stacktrace) |> String.split("\n")
  end

  defp reason(:error, reason, stacktrace), do: Exception.normalize(:error, reason, stacktrace)
  defp reason(kind, reason, _stacktrace), do: {kind, reason}
end
