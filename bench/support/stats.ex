defmodule Bench.Stats do
  @moduledoc """
  Times in nanoseconds, and what many of them say.
  """

  @doc "How long `fun` takes."
  def time(fun) do
    start = System.monotonic_time(:nanosecond)
    _ = fun.()
    System.monotonic_time(:nanosecond) - start
  end

  @doc "Times of `fun`, one for each of `count` runs, after some that do not count."
  def times(count, fun, warm_up \\ 3) do
    for _ <- 1..warm_up//1, do: fun.()
    for _ <- 1..count//1, do: time(fun)
  end

  @doc """
  Times of several functions, measured in turns, so that whatever else the machine does meets all of them alike: a list of
  times for each. Each turn has `chunk` runs.
  """
  def in_turns(turns, chunk, funs) do
    for fun <- funs, _ <- 1..chunk, do: fun.()

    1..turns
    |> Enum.map(fn _ -> for fun <- funs, do: for(_ <- 1..chunk, do: time(fun)) end)
    |> Enum.zip_with(&List.flatten/1)
  end

  def mean(values), do: Enum.sum(values) / length(values)

  def median(values), do: quantile(values, 0.5)

  @doc "The value below which a part of all values lies."
  def quantile(values, part) do
    sorted = Enum.sort(values)
    Enum.at(sorted, min(trunc(length(sorted) * part), length(sorted) - 1))
  end

  @doc "Half of the distance between the quartiles, as a part of the median."
  def spread(values) do
    median = median(values)
    if median == 0, do: 0.0, else: (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / median
  end
end
