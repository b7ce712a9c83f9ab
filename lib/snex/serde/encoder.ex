defprotocol Snex.Serde.Encoder do
  @moduledoc """
  Decides what a struct becomes in Python.

  Without an implementation, a struct becomes a `dict` of its fields, with `__struct__`. With an implementation, it
  becomes what `encode/1` returns, which is encoded like any other value, including any structs in it. If `encode/1`
  returns a struct of the same type, that struct becomes a `dict`.

  If an implementation raises, that call returns `{:error, %Snex.Error{code: :call_failed}}` with the exception as its
  reason.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> code = "return type(t).__name__, t.isoformat()"
      iex> Snex.pyeval(interpreter, code, %{"t" => ~T[12:30:00]})
      {:ok, {"time", "12:30:00"}}

  with this implementation:

      defimpl Snex.Serde.Encoder, for: Time do
        def encode(time) do
          Snex.Serde.object("datetime", "time", [time.hour, time.minute, time.second])
        end
      end
  """

  @fallback_to_any true

  @doc """
  Returns the value to encode instead of `struct`.
  """
  @spec encode(t()) :: term()
  def encode(struct)
end

defimpl Snex.Serde.Encoder, for: Any do
  # The same type again: a dict of the fields.
  def encode(struct), do: struct
end
