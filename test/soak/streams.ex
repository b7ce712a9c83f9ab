defmodule Snex.Soak.Streams do
  @moduledoc """
  Streams in both directions, consumed to their end or cut short, and generators that fail.

  Each item bears the number of its request and its own place, so that one that is lost, comes twice or out of order is noticed. When all
  callers have finished, no generator may be open, and nothing may run an enumerable for Python.
  """

  alias Snex.Error
  alias Snex.Serde
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests

  @init_script """
  open_streams = set()

  class Open:
      # What is open between its first item and its end, whichever way that comes.
      def __init__(self, number):
          self.number = number

      def __enter__(self):
          open_streams.add(self.number)

      def __exit__(self, *_):
          open_streams.discard(self.number)

  def count_up(number, count, fails):
      with Open(number):
          for place in range(count):
              yield number, place
          if fails:
              raise LookupError(number)

  async def count_up_later(number, count, fails):
      with Open(number):
          for place in range(count):
              if place % 50 == 0:
                  await asyncio.sleep(0)
              yield number, place
          if fails:
              raise LookupError(number)

  def told(items, number, most):
      # How many there were, and how many of those were not the next.
      got = wrong = 0
      if most == 0:
          return got, wrong
      for item in items:
          wrong += item != (number, got)
          got += 1
          if got == most:
              break
      return got, wrong

  async def told_later(items, number, most):
      got = wrong = 0
      if most == 0:
          return got, wrong
      async for item in items:
          wrong += item != (number, got)
          got += 1
          if got == most:
              break
      return got, wrong
  """

  @doc """
  What every interpreter starts with, for these requests.
  """
  def init_script, do: @init_script

  @doc """
  How often each is made.
  """
  def weights, do: [items_out: 50, items_in: 50]

  @doc """
  As `Snex.Soak.Requests.make/3`.
  """
  def make(:items_out, home, inp) do
    count = :rand.uniform(2_000) - 1
    # Twice as often to the end as not.
    most = Enum.random([count, count, div(count, 2)])
    fails? = most == count and :rand.uniform(4) == 1
    function = Enum.random(["count_up", "count_up_later"])
    opts = [demand: Enum.random([1, 2, 16, 256])]

    Requests.entered(home, :items_out, fn number ->
      items = Snex.stream(inp, {function, [number, count, fails?]}, %{}, opts)
      Process.put(:got, 0)

      result =
        try do
          items |> Stream.take(most) |> Enum.each(&receive_item(&1, number, home))
        rescue
          error in Error -> error
        end

      got = Process.get(:got)
      settle(home, most, got, result, number, if(fails? and most == count, do: "LookupError"))
    end)
  end

  def make(:items_in, home, inp) do
    count = :rand.uniform(2_000) - 1
    most = Enum.random([count, count, div(count, 2)])
    {function, run} = Enum.random([{"told", :loop}, {"told", :thread}, {"told_later", :loop}])

    Requests.entered(home, :items_in, fn number ->
      items =
        0..(count - 1)//1 |> Stream.map(&{number, &1}) |> Serde.stream(demand: Enum.random([1, 2, 16, 256]))

      case Snex.call(inp, function, [items, number, most], run: run, timeout: :infinity) do
        {:ok, {got, wrong}} ->
          if wrong > 0, do: Ledger.blame(home, :out_of_order, "#{wrong} of #{got} items into call #{number}")
          settle(home, most, got, :ok, number, nil)

        {:error, error} ->
          settle(home, most, 0, error, number, nil)
      end
    end)
  end

  defp receive_item({number, place}, number, home) do
    expected = Process.get(:got)
    Process.put(:got, expected + 1)

    cond do
      place == expected ->
        :ok

      place < expected ->
        Ledger.blame(home, :doubled, "item #{place} of call #{number} instead of #{expected}")

      true ->
        Ledger.blame(home, :out_of_order, "item #{place} of call #{number} instead of #{expected}")
    end
  end

  # Writes down what has become of `most` items.
  defp settle(home, most, got, result, number, fails) do
    outcome = outcome(result, number, fails)

    dropped =
      case outcome do
        {:failed, cause} when got < most and cause != fails ->
          [{{:items, "dropped: " <> cause}, most - got}]

        _other when got == most ->
          []

        _other ->
          Ledger.blame(
            home,
            :items_lost,
            "#{most - got} of #{most} items of call #{number}: #{inspect(outcome)}"
          )

          []
      end

    Ledger.note_all(home, [{{:items, :sent}, most}, {{:items, :received}, got} | dropped])
    outcome
  end

  defp outcome(:ok, _number, nil), do: :answered
  # It was cut off right before it would have failed.
  defp outcome(:ok, _number, fails), do: {:failed, fails}

  defp outcome(%Error{} = error, number, fails),
    do: Requests.failed(error, if(fails, do: [{:number, fails}], else: []), number)

  # ---- The end -------------------------------------------------------------------------------------

  @doc """
  How many generators are open in an interpreter.
  """
  def left_in(interpreter) do
    with {:ok, count} <- Snex.pyeval(interpreter, "return len(open_streams)", timeout: 60_000), do: count
  end
end
