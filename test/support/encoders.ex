# Structs with encoders, for the tests. They are here so that they are there when protocols are consolidated.

defimpl Snex.Serde.Encoder, for: Time do
  def encode(time), do: Snex.Serde.object("datetime", "time", [time.hour, time.minute, time.second])
end

defmodule Snex.Money do
  @moduledoc "Becomes a tuple."
  defstruct [:amount, :currency]

  defimpl Snex.Serde.Encoder do
    def encode(money), do: {money.amount, money.currency}
  end
end

defmodule Snex.Basket do
  @moduledoc "Becomes a map with structs in it, which are encoded again."
  defstruct [:items]

  defimpl Snex.Serde.Encoder do
    def encode(basket),
      do: %{"items" => basket.items, "total" => %Snex.Money{amount: length(basket.items), currency: :EUR}}
  end
end

defmodule Snex.Tagged do
  @moduledoc "Has the last word: stays what it is, with a field changed."
  defstruct [:value, tag: nil]

  defimpl Snex.Serde.Encoder do
    def encode(tagged), do: %{tagged | tag: "seen"}
  end
end

defmodule Snex.Ping do
  @moduledoc "Never comes to an end."
  defstruct [:n]
end

defmodule Snex.Pong do
  @moduledoc "Never comes to an end."
  defstruct [:n]
end

defimpl Snex.Serde.Encoder, for: Snex.Ping do
  def encode(ping), do: %Snex.Pong{n: ping.n}
end

defimpl Snex.Serde.Encoder, for: Snex.Pong do
  def encode(pong), do: %Snex.Ping{n: pong.n}
end

defmodule Snex.Broken do
  @moduledoc "Has an encoder that fails in the way that it is told to."
  defstruct [:how]

  defimpl Snex.Serde.Encoder do
    def encode(%{how: :raise}), do: raise(ArgumentError, "no encoding today")
    def encode(%{how: :throw}), do: throw(:ball)
    def encode(%{how: {:tell, pid}}), do: send(pid, :encoded)
  end
end
