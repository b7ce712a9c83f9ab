defmodule Bench.Curves do
  @moduledoc """
  How things grow with size and number, as drawings.
  """

  alias Bench.{Calls, Plot, Stats}

  @doc "Measures all curves, and writes one SVG each, and `curves.json`, into a folder."
  def draw(context, folder, title) do
    File.mkdir_p!(folder)

    curves =
      for {name, label, unit, points} <- curves(context) do
        IO.write(:stderr, "curve #{name} ...\n")
        points = for {x, measure} <- points, do: {x, measure.()}
        svg = Plot.svg("#{unit} over #{label}", title, [{name, points}])
        File.write!(Path.join(folder, "#{name}.svg"), svg)
        {name, %{label: label, unit: unit, points: Enum.map(points, &Tuple.to_list/1)}}
      end

    File.write!(Path.join(folder, "curves.json"), JSON.encode!(Map.new(curves)))
  end

  defp curves(context) do
    [
      {"payload", "bytes to Python and back", "us",
       for(x <- sizes(context), do: {x, fn -> payload(context, x) end})},
      {"callers", "callers at once", "calls per second",
       for(x <- powers(0, 8), do: {x, fn -> callers(context, x) end})},
      {"environments", "environments alive", "us per call",
       for(x <- environments(context), do: {x, fn -> environments(context, x) end})},
      {"depth", "depth of a nested list, there and back", "us",
       for(x <- depths(context), do: {x, fn -> depth(context, x) end})},
      {"interpreters", "interpreters, one caller each", "calls per second",
       for(x <- powers(0, if(context.quick, do: 1, else: 4)), do: {x, fn -> interpreters(context, x) end})}
    ]
  end

  defp powers(from, to), do: for(n <- from..to, do: 2 ** n)
  defp sizes(%{quick: true}), do: [10, 1_000]

  defp sizes(_context),
    do: [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 256 * 1024 * 1024]

  defp environments(%{quick: true}), do: [1, 100]
  defp environments(_context), do: [1, 10, 100, 1_000, 10_000, 100_000]
  defp depths(%{quick: true}), do: [1, 100]
  defp depths(_context), do: [1, 10, 100, 1_000, 10_000, 100_000]

  defp payload(context, size) do
    value = Snex.Serde.binary(:binary.copy(<<7>>, size))
    there_and_back(context, value)
  end

  defp depth(context, depth),
    do: there_and_back(context, Enum.reduce(1..depth, [], fn _, inner -> [inner] end))

  defp there_and_back(context, value) do
    microseconds(context, fn ->
      {:ok, _} = Snex.pyeval(context.interpreter, "return x", %{"x" => value}, timeout: :infinity)
    end)
  end

  defp callers(context, count) do
    env = Snex.make_env!(context.interpreter)
    Calls.per_second(context, fn -> {:ok, 1} = Snex.pyeval(env, "return 1") end, count)
  end

  defp environments(context, count) do
    envs = List.to_tuple(for _ <- 1..count, do: Snex.make_env!(context.interpreter))

    microseconds(context, fn ->
      {:ok, 1} = Snex.pyeval(elem(envs, :rand.uniform(count) - 1), "return 1")
    end)
  end

  defp interpreters(context, count) do
    interpreters =
      for _ <- 1..count do
        {:ok, interpreter} = Snex.Interpreter.start_link(python: context.python)
        interpreter
      end

    each = div(context.calls, count)

    time =
      Stats.time(fn ->
        interpreters
        |> Enum.map(fn interpreter ->
          Task.async(fn -> for _ <- 1..each, do: {:ok, 1} = Snex.pyeval(interpreter, "return 1") end)
        end)
        |> Task.await_many(:infinity)
      end)

    Enum.each(interpreters, &Snex.Interpreter.stop/1)
    each * count * 1_000_000_000 / time
  end

  defp microseconds(context, fun), do: Stats.median(Stats.times(context.runs * 3, fun)) / 1000
end
