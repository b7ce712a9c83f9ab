# Elixir reads a file, numpy computes, Elixir draws. Run it with bin/demo, or `mix run examples/quickstart.exs` in this
# repository, or from anywhere with `elixir examples/quickstart.exs`.

unless Code.ensure_loaded?(Snex) do
  # On a machine without Hex, Mix.install wants to install it before it takes anything from its cache.
  hex? = Path.wildcard(Path.join(Mix.path_for(:archives), "hex-*")) != []
  Mix.install([{:snex, path: Path.expand("..", __DIR__)}], force: not hex?)
end

defmodule Quickstart.Numpy do
  # A Python with numpy, made by uv when this module is compiled. A Python that the machine has will do;
  # `SNEX_PYTHON_PREFERENCE=only_managed` makes uv download one.
  use Snex.Interpreter,
    python_preference: String.to_atom(System.get_env("SNEX_PYTHON_PREFERENCE", "system")),
    pyproject_toml: """
    [project]
    name = "quickstart"
    version = "0.0.0"
    requires-python = ">=3.10"
    dependencies = ["numpy>=2"]
    """
end

defmodule Quickstart.Plot do
  @moduledoc "Curves in the terminal: eight dots to a character, thanks to Braille."

  import Bitwise

  # The bit of each dot in a Braille character, by row and column.
  @dots {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

  @doc "Lines of text that show `values`, from left to right, as dots between `low` and `high`."
  def curve(values, width, height, {low, high}) do
    columns = width * 2
    rows = height * 4
    chunk = length(values) / columns

    lit =
      for {value, index} <- Enum.with_index(values), reduce: %{} do
        lit ->
          x = trunc(index / chunk)
          y = round((high - value) / (high - low) * (rows - 1)) |> max(0) |> min(rows - 1)
          Map.update(lit, {div(x, 2), div(y, 4)}, dot(x, y), &(&1 ||| dot(x, y)))
      end

    for row <- 0..(height - 1) do
      for column <- 0..(width - 1),
          into: "",
          do: <<0x2800 + Map.get(lit, {column, row}, 0)::utf8>>
    end
  end

  defp dot(x, y), do: @dots |> elem(rem(y, 4)) |> elem(rem(x, 2))

  @doc "Lines of text with a bar for each of `values`."
  def bars(values, height) do
    top = Enum.max(values)

    for row <- (height - 1)..0//-1 do
      for value <- values, into: "" do
        eighths = round(value / top * height * 8) - row * 8
        String.at(" ▁▂▃▄▅▆▇█", eighths |> max(0) |> min(8))
      end
    end
  end
end

defmodule Quickstart do
  alias Quickstart.{Numpy, Plot}

  @width 70

  def run do
    {dates, celsius} = read("data/port_larkin.csv")

    heading("Ten years of weather in Port Larkin, a harbour town that does not exist (synthetic data)")

    IO.puts("#{length(dates)} days, read by Elixir. Each dot is a day's mean temperature.\n")
    plot(celsius)

    {:ok, numpy} = Numpy.start_link(init_script: "import numpy as np")
    {:ok, env} = Snex.make_env(numpy, %{"celsius" => celsius})

    {:ok, python} =
      Snex.pyeval(
        env,
        "import sys\nreturn f'Python {sys.version.split()[0]}, numpy {np.__version__}'"
      )

    fit = fit(env)
    heading("What numpy makes of it (#{python}, process #{Numpy.os_pid(numpy)})")
    IO.puts("Least squares, #{length(fit["curve"])} days and 6 unknowns: warming and seasons.\n")
    plot(fit["curve"])
    IO.puts("")

    row(
      "warming",
      "#{signed(fit["warming"])} °C in ten years, give or take #{round_to(fit["error"], 2)}"
    )

    row("warmest day", "#{fit["warmest"]}  (Python asked Elixir for this name)")
    row("coldest day", fit["coldest"])
    row("left over", "#{round_to(fit["weather"], 1)} °C: the weather")

    spectrum = spectrum(env)
    heading("What is in the weather? A Fourier transform of what was left over")
    for line <- Plot.bars(spectrum["amplitude"], 5), do: IO.puts([indent(), emphasize(line)])
    IO.puts("#{indent()}#{axis(spectrum["periods"])}\n")

    row(
      "one wave",
      "returns every #{round_to(spectrum["period"], 2)} days, #{round(spectrum["times"])} times the power around it:"
    )

    row("", "from spring tide to spring tide it is 14.77 days.")

    :ok = Numpy.stop(numpy)
    IO.puts("")
  end

  # The first call leaves `days` and `left_over` behind in the environment, the second one uses them.
  defp fit(env) do
    {:ok, fit} =
      Snex.pyeval(env, """
      celsius = np.array(celsius)
      days = np.arange(len(celsius))
      year, decade = 365.2425, 3652.425

      def seasons(day):
          turn = 2 * np.pi * day / year
          return [np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)]

      design = np.column_stack([np.ones(len(days)), days / decade, *seasons(days)])
      unknowns, *_ = np.linalg.lstsq(design, celsius, rcond=None)
      curve = design @ unknowns
      left_over = celsius - curve

      # Neighbouring days are alike: that leaves fewer independent ones.
      alike = np.corrcoef(left_over[1:], left_over[:-1])[0, 1]
      variance = left_over.var() * (1 + alike) / (1 - alike) * np.linalg.inv(design.T @ design)[1, 1]

      one_year = np.column_stack(seasons(np.arange(365))) @ unknowns[2:]
      warmest, coldest = int(one_year.argmax()), int(one_year.argmin())

      return {
          "curve": curve.tolist(),
          "warming": float(unknowns[1]),
          "error": float(np.sqrt(variance)),
          "weather": float(left_over.std()),
          "warmest": await Elixir.Quickstart.day_name(warmest),
          "coldest": await Elixir.Quickstart.day_name(coldest),
      }
      """)

    fit
  end

  @doc "Python calls this: the day after so many others in a year, as people write it."
  def day_name(days_before) do
    ~D[2015-01-01] |> Date.add(days_before) |> Calendar.strftime("%-d %B")
  end

  defp spectrum(env) do
    {:ok, spectrum} =
      Snex.pyeval(
        env,
        """
        power = np.abs(np.fft.rfft(left_over * np.hanning(len(left_over)))) ** 2
        periods = len(left_over) / np.arange(1, len(power))
        power = power[1:]

        short = (periods > 4) & (periods < 60)
        peak = np.flatnonzero(short)[power[short].argmax()]
        around = np.median(power[peak - 40 : peak + 40])

        edges = np.geomspace(60, 4, width + 1)
        bins = [power[(periods <= a) & (periods > b)] for a, b in zip(edges, edges[1:])]
        return {
            "amplitude": [float(np.sqrt(bin.max(initial=0))) for bin in bins],
            "periods": edges.tolist(),
            "period": float(periods[peak]),
            "times": float(power[peak] / around),
        }
        """,
        %{"width" => @width}
      )

    spectrum
  end

  defp read(file) do
    Path.join(__DIR__, file)
    |> File.stream!()
    |> Stream.reject(&String.starts_with?(&1, ["#", "date,"]))
    |> Enum.map(fn line ->
      [date, celsius] = line |> String.trim() |> String.split(",")
      {Date.from_iso8601!(date), String.to_float(celsius)}
    end)
    |> Enum.unzip()
  end

  ## Presentation

  defp plot(values) do
    {low, high} = {-2, 24}

    values
    |> Plot.curve(@width, 9, {low, high})
    |> Enum.with_index(fn line, row ->
      label = %{0 => "#{high} °C", 8 => "#{low} °C"}[row] || ""
      IO.puts("#{String.pad_leading(label, 7)} #{emphasize(line)}")
    end)

    years = Enum.map_join(2015..2024, "", &String.pad_trailing("#{&1}", div(@width, 10)))
    IO.puts(indent() <> years)
  end

  # The periods below the bars, each where it belongs.
  defp axis(edges) do
    for days <- [60, 30, 15, 8, 4], reduce: "" do
      line ->
        at = Enum.find_index(edges, &(&1 <= days + 0.01))
        String.pad_trailing(line, min(at, @width - 4)) <> "#{days} d"
    end
  end

  defp heading(text), do: IO.puts(["\n", IO.ANSI.format([:bright, text])])
  defp row(name, text), do: IO.puts("#{indent()}#{String.pad_trailing(name, 13)}#{text}")
  defp emphasize(text), do: IO.ANSI.format([:cyan, text])
  defp indent, do: String.duplicate(" ", 8)
  defp round_to(number, digits), do: :erlang.float_to_binary(number, decimals: digits)
  defp signed(number), do: if(number > 0, do: "+", else: "") <> round_to(number, 2)
end

Quickstart.run()
