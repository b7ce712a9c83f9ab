# Measures Snex against its floors. Run it with bin/bench, which says how.

for file <- ~w[support/stats support/row support/python support/schedulers baseline/bridge
               rows/calls rows/pools rows/objects rows/streams rows/feeds rows/map rows/data rows/arrays rows/shared rows/frames
               rows/bindings rows/start rows/copies rows/memory
               support/plot support/curves],
    path = Path.join(__DIR__, file <> ".ex"),
    File.exists?(path),
    do: Code.require_file(path)

defmodule Bench do
  alias Bench.{Bridge, Python, Row, Schedulers, Stats}

  @results Path.join(__DIR__, "results")

  def main(args) do
    {opts, rest, wrong} =
      OptionParser.parse(args, strict: [only: :keep, python: :string, quick: :boolean, curves: :boolean])

    if rest != [] or wrong != [],
      do: stop("what is #{inspect(rest ++ Enum.map(wrong, &elem(&1, 0)))}? See bin/bench")

    context = context(opts)
    wanted = Keyword.get_values(opts, :only)

    rows =
      Enum.flat_map(
        [
          Bench.Calls,
          Bench.Pools,
          Bench.Copies,
          Bench.Objects,
          Bench.Streams,
          Bench.Feeds,
          Bench.Map,
          Bench.Data,
          Bench.Arrays,
          Bench.Frames,
          Bench.Bindings,
          Bench.Shared,
          Bench.Start,
          Bench.Memory
        ],
        & &1.rows()
      )

    names = Enum.map(rows, &to_string(elem(&1, 0)))

    if wanted -- names != [],
      do: stop("no such row: #{Enum.join(wanted -- names, ", ")}; there are #{Enum.join(names, ", ")}")

    gain = gain(context)

    IO.puts("""
    Python #{context.info.python} (#{context.info.implementation}, encoder #{context.info.encoder}), #{machine()}
    Pythons on all processors at once do #{gain} x the work of one.
    """)

    {results, held} =
      Schedulers.longest(fn ->
        for {name, measure} <- rows, wanted == [] or to_string(name) in wanted do
          IO.write(:stderr, "#{name} ... ")
          result = measure.(context)
          IO.puts(:stderr, "#{Float.round(Row.ratio(result) * 1.0, 2)} x")
          result
        end
      end)

    IO.puts(["\n", table([Row.headings() | Enum.map(results, &Row.line/1)])])

    IO.puts(
      "longest time that a NIF held a scheduler: #{if held == 0, do: "below 2", else: held} ms (target: 2 ms)"
    )

    write(context, results, held, gain)
    if opts[:curves], do: Bench.Curves.draw(context, @results, machine())
  end

  defp context(opts) do
    quick = Keyword.get(opts, :quick, false)
    python = System.find_executable(opts[:python] || "python3") || stop("no Python at #{opts[:python]}")
    {python, 0} = System.cmd(python, ["-c", "import sys; print(sys.executable, end='')"])
    {:ok, interpreter} = Snex.Interpreter.start_link(python: python)
    {:ok, bridge} = Bridge.start_link(python)

    %{
      python: python,
      interpreter: interpreter,
      info: Snex.Interpreter.info(interpreter),
      bridge: bridge,
      quick: quick,
      runs: if(quick, do: 2, else: 11),
      turns: if(quick, do: 2, else: 25),
      calls: if(quick, do: 320, else: 16_000)
    }
  end

  defp machine do
    cpu =
      with {:ok, text} <- File.read("/proc/cpuinfo"),
           [_, model] <- Regex.run(~r/^model name\s*: (.*)$/m, text),
           do: model,
           else: (_ -> to_string(:erlang.system_info(:system_architecture)))

    "#{System.schedulers_online()} x #{cpu}, Elixir #{System.version()} on OTP #{System.otp_release()}"
  end

  # What processors that share a core, or have other work, leave of the number of processors: no row that counts calls of several Pythons can
  # be better.
  defp gain(context) do
    ratios =
      context
      |> Python.floor("processors", [context.runs])
      |> Enum.chunk_every(2)
      |> Enum.map(fn [alone, together] -> System.schedulers_online() * alone / together end)

    Float.round(Stats.median(ratios), 2)
  end

  defp table(lines) do
    widths = lines |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for line <- lines do
      [Enum.zip_with(line, widths, fn cell, width -> [String.pad_trailing(cell, width), "  "] end), "\n"]
    end
  end

  defp write(context, results, held, gain) do
    File.mkdir_p!(@results)
    path = Path.join(@results, "latest.json")

    content = %{
      machine: machine(),
      processors_gain: gain,
      python: context.info.python,
      encoder: context.info.encoder,
      quick: context.quick,
      longest_schedule_ms: held,
      rows: Enum.map(results, &Row.to_map/1)
    }

    File.write!(path, JSON.encode!(content))
    IO.puts("written to #{Path.relative_to_cwd(path)}")
  end

  defp stop(message) do
    IO.puts(:stderr, message)
    System.halt(2)
  end
end

Bench.main(System.argv())
