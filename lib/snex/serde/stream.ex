defmodule Snex.Serde.Stream do
  @moduledoc false
  # What `Snex.Serde.stream/2` makes. Where it is encoded, a source is opened for it, and the native code looks that up by the
  # reference; see `Snex.Source`.

  @enforce_keys [:enumerable, :demand, :encoding, :node, :reference]
  defstruct [:enumerable, :demand, :encoding, :node, :reference]

  @type t() :: %__MODULE__{
          enumerable: Enumerable.t(),
          demand: pos_integer(),
          encoding: tuple(),
          node: node(),
          reference: reference()
        }

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(stream, options),
      do: concat(["Snex.Serde.stream(", to_doc(stream.enumerable, options), ")"])
  end
end
