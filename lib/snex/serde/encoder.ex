defprotocol Snex.Serde.Encoder do
  @moduledoc """
  How a struct looks in Python.

  Without an implementation a struct is a `dict` of its fields, with `__struct__`. With one it is what `encode/1`
  returns, which is encoded again like any value, other structs in it included. An implementation that returns a struct of the same
  type has the last word: that struct becomes a `dict`.

  An implementation that raises is the error of the one call: `{:error, %Snex.Error{code: :call_failed}}` with the
  exception as its reason.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> code = "return type(t).__name__, t.isoformat()"
      iex> Snex.pyeval(interpreter, code, %{"t" => ~T[12:30:00]})
      {:ok, {"time", "12:30:00"}}

  where there is

      defimpl Snex.Serde.Encoder, for: Time do
        def encode(time) do
          Snex.Serde.object("datetime", "time", [time.hour, time.minute, time.second])
        end
      end
  """

  @fallback_to_any true

  @doc """
  What is encoded instead of `struct`.
  """
  @spec encode(t()) :: term()
  def encode(struct)
end

defimpl Snex.Serde.Encoder, for: Any do
  # The same type again: a dict of the fields.
  def encode(struct), do: struct
end
