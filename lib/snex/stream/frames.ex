defmodule Snex.Stream.Frames do
  @moduledoc false
  # The frames of one stream: put in order as they arrive, and kept until the consumer takes them.
  #
  # Python is not trusted with the numbers it sends. Whatever it says, a stream keeps no more than the items that it has been asked for, and what
  # cannot be true is an error: waiting for the items that would make it true would have no end.

  alias Snex.Serde.Decoder

  @typedoc "Items as they have arrived."
  @type frame() :: {:items | :items_safe, Decoder.content()}

  @typedoc """
  In the order in which they come to be: `early` are frames behind a gap, by the number of items before them; `queue` is what has arrived without
  one, the latest first, with `arrived` items since the beginning; of these the consumer has taken `given`. `total` is set when the end has arrived.
  """
  @type t() :: %__MODULE__{
          demand: pos_integer(),
          early: %{pos_integer() => frame()},
          queue: [frame()],
          arrived: non_neg_integer(),
          given: non_neg_integer(),
          total: non_neg_integer() | nil
        }

  @enforce_keys [:demand]
  defstruct [:demand, early: %{}, queue: [], arrived: 0, given: 0, total: nil]

  @doc """
  Those of a stream that may have `demand` items on the way.
  """
  @spec new(pos_integer()) :: t()
  def new(demand), do: %__MODULE__{demand: demand}

  @doc """
  Adds a frame that has `index` items before it, or says why it cannot be one.
  """
  @spec put(t(), non_neg_integer(), frame()) :: {:ok, t()} | {:error, String.t()}
  def put(frames, index, frame) do
    count = count(frame)

    cond do
      count == nil ->
        {:error, "the items of a stream are not a list"}

      # It says nothing, and there may be any number of them.
      count == 0 ->
        {:ok, frames}

      index < frames.arrived or is_map_key(frames.early, index) ->
        twice(index)

      frames.total != nil and index + count > frames.total ->
        {:error, "a stream has sent more items than the #{frames.total} with which it ended"}

      index + count > allowed(frames) ->
        too_many(frames, index + count)

      index > frames.arrived ->
        {:ok, %{frames | early: Map.put(frames.early, index, frame)}}

      true ->
        arrive(frames, frame)
    end
  end

  defp arrive(frames, frame) do
    frames = %{frames | queue: [frame | frames.queue], arrived: frames.arrived + count(frame)}

    case Map.pop(frames.early, frames.arrived) do
      {nil, early} when early == %{} ->
        {:ok, frames}

      {nil, early} ->
        first = Enum.min(Map.keys(early))
        if first < frames.arrived, do: twice(first), else: {:ok, frames}

      {next, early} ->
        arrive(%{frames | early: early}, next)
    end
  end

  defp twice(index), do: {:error, "item #{index} of a stream was sent twice"}

  defp too_many(frames, count),
    do: {:error, "a stream has sent #{count} items, but was asked for #{allowed(frames)}"}

  defp allowed(frames), do: frames.given + frames.demand

  @doc """
  Notes how many items there are in all, or says why it cannot be so many.
  """
  @spec finish(t(), non_neg_integer()) :: {:ok, t()} | {:error, String.t()}
  def finish(frames, total) do
    sent = frames.early |> Enum.map(fn {index, frame} -> index + count(frame) end) |> Enum.max(fn -> 0 end)
    sent = max(sent, frames.arrived)

    cond do
      total < sent -> {:error, "a stream claims to have ended after #{total} items, but has sent #{sent}"}
      total > allowed(frames) -> too_many(frames, total)
      true -> {:ok, %{frames | total: total}}
    end
  end

  @doc """
  What has arrived without a gap is all there will be.
  """
  @spec break_off(t()) :: t()
  def break_off(frames), do: %{frames | early: %{}, total: frames.arrived}

  @doc """
  Whether everything has arrived.
  """
  @spec complete?(t()) :: boolean()
  def complete?(frames), do: frames.arrived == frames.total

  @doc """
  Takes out all frames that have arrived without a gap, or the first of them.
  """
  @spec take(t(), :all | :first) :: {[frame()], t()}
  def take(%{queue: []} = frames, _how), do: {[], frames}
  def take(frames, :all), do: given(Enum.reverse(frames.queue), %{frames | queue: []})

  def take(frames, :first) do
    {left, first} = Enum.split(frames.queue, -1)
    given(first, %{frames | queue: left})
  end

  defp given(taken, frames) do
    count = taken |> Enum.map(&count/1) |> Enum.sum()
    {taken, %{frames | given: frames.given + count}}
  end

  # The number of items in a frame, which begins as a list in external format does. If it is not true, the list cannot be decoded.
  defp count({_tag, {body, _handles}}), do: count_of(body)
  defp count({_tag, body}), do: count_of(body)

  defp count_of(<<131, ?l, count::32, _::binary>>), do: count
  defp count_of(<<131, ?k, count::16, _::binary>>), do: count
  defp count_of(<<131, ?j>>), do: 0
  defp count_of(_no_list), do: nil
end
