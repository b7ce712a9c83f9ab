# The rows of an embedded Python, for docs/comparison.md. Run it in a project that depends on Pythonx, with the paths of a CPython:
#
#   mix run embedded.exs LIBPYTHON HOME EXECUTABLE

[library, home, executable] = System.argv()
:ok = Pythonx.init(library, home, executable)

time = fn fun ->
  begun = System.monotonic_time(:nanosecond)
  fun.()
  System.monotonic_time(:nanosecond) - begun
end

# Each time in a process of its own, whose heap is clean.
apart = fn fun -> Task.await(Task.async(fn -> time.(fun) end), :infinity) end
median = fn times -> times |> Enum.sort() |> Enum.at(div(length(times), 2)) end
report = fn name, value, unit -> IO.puts("#{name}: #{Float.round(value, 2)} #{unit}") end

call = fn ->
  {result, _globals} = Pythonx.eval("1", %{})
  1 = Pythonx.decode(result)
end

for _ <- 1..500, do: call.()
report.("a call", median.(for _ <- 1..5_000, do: time.(call)) / 1_000, "us")

together = fn ->
  1..16
  |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..200, do: call.() end) end)
  |> Task.await_many(:infinity)
end

report.(
  "16 callers",
  3_200_000_000_000 / median.(for _ <- 1..3, do: time.(together)) / 1_000,
  "calls per second"
)

numbers = Enum.to_list(1..10_000)
bytes = :binary.copy(<<7>>, 64 * 1024 * 1024)

for {name, value, code} <- [
      {"10,000 integers", numbers, "list(range(1, 10001))"},
      {"64 MiB of bytes", bytes, "bytes(64 * 1024 * 1024)"}
    ] do
  {object, _globals} = Pythonx.eval(code, %{})

  report.(
    "#{name} to Python",
    median.(for _ <- 1..7, do: apart.(fn -> Pythonx.encode!(value) end)) / 1.0e6,
    "ms"
  )

  report.(
    "#{name} to Elixir",
    median.(for _ <- 1..7, do: apart.(fn -> Pythonx.decode(object) end)) / 1.0e6,
    "ms"
  )
end
