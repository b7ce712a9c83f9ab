# Draws the figures of docs/performance.md and docs/comparison.md from measurements that are in the repository:
#
#   mix run --no-start bench/draw.exs
#
# bench/results/rows.json is a copy of what `bin/bench` has written to latest.json, and curves.json is what `bin/bench --curves` writes.

for file <- ~w[support/plot support/bars], do: Code.require_file(file <> ".ex", __DIR__)

results = Path.join(__DIR__, "results")
read = fn name -> results |> Path.join(name) |> File.read!() |> JSON.decode!() end
write = fn name, svg -> File.write!(Path.expand("../docs/images/#{name}.svg", __DIR__), svg) end

measured = read.("rows.json")
rows = Map.new(measured["rows"], &{&1["name"], &1})
title = "#{measured["machine"]}, CPython #{measured["python"]}"

# The medians of a row, in nanoseconds for one of so many.
value = fn name, count -> rows[name]["value"]["median"] / count end
floor = fn name, count -> rows[name]["floor"]["median"] / count end

write.(
  "calls",
  Bench.Bars.svg("What one call costs", title, ["median"], [
    {"an item of Snex.stream/4", [value.("stream_ints", 1_000_000)]},
    {"an element of Snex.map/4", [value.("map_list", 1_000_000)]},
    {"Snex.pyeval/4", [value.("eval", 1)]},
    {"the same through a pool", [value.("pool", 1)]},
    {"Snex.call/4 by name", [value.("call_by_name", 1)]},
    {"Snex.Object.get/3", [value.("object_get", 1)]},
    {"Python awaits a call of Elixir", [value.("call", 1)]},
    {"Python calls an Elixir function", [value.("callback", 1)]},
    {"Snex.pyeval/4, run: :thread", [value.("eval_thread", 1)]},
    {"start of an interpreter", [value.("start", 1)]}
  ])
)

data = [
  {"1,000,000 integers to Python", "ints_to_python"},
  {"1,000,000 integers to Elixir", "ints_to_elixir"},
  {"100,000 maps to Python", "maps_to_python"},
  {"100,000 maps to Elixir", "maps_to_elixir"},
  {"64 MiB of bytes to Python", "binary_to_python"},
  {"64 MiB of bytes to Elixir", "binary_to_elixir"},
  {"an array of 64 MiB to Python", "array_to_python"},
  {"64 MiB of snex.shared to Elixir", "shared_to_elixir"}
]

write.(
  "data",
  Bench.Bars.svg(
    "What data costs",
    title,
    ["Snex, the whole call", "the same without Snex (see below)"],
    for({label, name} <- data, do: {label, [value.(name, 1), floor.(name, 1)]})
  )
)

write.(
  "bridge",
  Bench.Bars.svg("Beside a plain port", title, ["Snex", "a plain port"], [
    {"a call", [value.("eval", 1), floor.("eval", 1)]},
    {"a call, with 16 callers at once",
     [1_000_000_000 / value.("eval_16", 1), 1_000_000_000 / floor.("eval_16", 1)]},
    {"a call from Python to Elixir", [value.("call", 1), floor.("call", 1)]}
  ])
)

curves = read.("curves.json")

for {name, heading} <- [
      payload: "Time for a binary to Python and back, in µs, over its bytes",
      callers: "Calls per second, over callers at once"
    ] do
  curve = curves[to_string(name)]
  points = Enum.map(curve["points"], &List.to_tuple/1)
  write.(to_string(name), Bench.Plot.svg(heading, "2 x AMD EPYC, Elixir 1.18.3 on OTP 27", [{name, points}]))
end
