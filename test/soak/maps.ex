defmodule Snex.Soak.Maps do
  @moduledoc """
  Maps: a call for each of many elements, as a list, a stream, or several at a time, and elements whose call fails.

  Each element bears the number of its request and its own place, and each result has to be that of its place. So one that is
  lost or out of order is noticed here, and an element that is called twice by Python.
  """

  alias Snex.Error
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests

  @init_script """
  mapped_places = {}

  def mapped(number, place, count):
      places = mapped_places.setdefault(number, set())
      if place in places:
          raise RuntimeError(f"element {place} of call {number} comes twice")
      places.add(place)
      if len(places) == count:
          del mapped_places[number]
      if place % 97 == 96:
          raise LookupError(number)
      return number, place

  async def mapped_later(number, place, count):
      if place % 50 == 0:
          await asyncio.sleep(0)
      return mapped(number, place, count)
  """

  @doc """
  What every interpreter starts with, for these requests.
  """
  def init_script, do: @init_script

  @doc """
  How often each is made.
  """
  def weights, do: [mapped: 50]

  @doc """
  As `Snex.Soak.Requests.make/3`.
  """
  def make(:mapped, home, inp) do
    count = :rand.uniform(2_000) - 1

    opts =
      Enum.random([[], [stream: true], [concurrency: 3], [run: :thread], [demand: Enum.random([1, 7, 100])]])

    function = Enum.random(["mapped", "mapped_later"])

    Requests.entered(home, :mapped, fn number ->
      elements = Stream.map(0..(count - 1)//1, &{number, &1, count})

      results =
        inp |> Snex.map(function, elements, [unpack: true] ++ opts) |> Enum.map(&outcome(&1, number))

      if length(results) != count,
        do:
          Ledger.blame(
            home,
            :elements_lost,
            "#{length(results)} results for #{count} elements of call #{number}"
          )

      for {{:answered, place}, index} <- Enum.with_index(results),
          place != index,
          do:
            Ledger.blame(
              home,
              :elements_out_of_order,
              "element #{place} of call #{number} instead of #{index}"
            )

      settle(home, count, results, number)
    end)
  end

  defp outcome({:ok, {number, place}}, number), do: {:answered, place}
  defp outcome({:ok, other}, _number), do: {:wrong, inspect(other)}

  defp outcome({:error, %Error{} = error}, number),
    do: Requests.failed(error, [{:number, "LookupError"}], number)

  # Writes down what has become of the elements. The first that has failed for another reason than its own decides what has
  # become of the request.
  defp settle(home, count, results, number) do
    frequencies = Enum.frequencies_by(results, &named/1)
    counts = for {what, n} <- frequencies, do: {{:elements, what}, n}
    Ledger.note_all(home, [{{:elements, :sent}, count} | counts])

    case Enum.find(results, &(elem(&1, 0) == :wrong)) || Enum.find(results, &faulty?/1) do
      nil -> :answered
      {:wrong, what} -> {:wrong, "an element of call #{number}: #{what}"}
      {:failed, cause} -> {:failed, cause}
    end
  end

  defp named({:answered, _place}), do: :answered
  defp named({:failed, cause}), do: "failed: " <> cause
  defp named({:wrong, _what}), do: :wrong

  defp faulty?({:failed, cause}), do: cause != "LookupError"
  defp faulty?(_outcome), do: false
end
