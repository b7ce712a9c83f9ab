defmodule Snex.Soak.Report do
  @moduledoc """
  What came of a run, as a table and as JSON, and whether it is good.
  """

  alias Snex.Figures

  # By which memory may differ: see test/snex/leaks_test.exs. The tables of the ledger are gone by then.
  @slack 32 * 1024 * 1024

  @doc """
  Prints and writes the report. Returns the exit status: 0 when everything that must be 0 is.
  """
  def write(run) do
    sent = for {{:sent, kind}, n} <- run.totals, into: %{}, do: {kind, n}
    failed = for {{:ended, {:failed, cause}}, n} <- run.totals, into: %{}, do: {cause, n}
    faults = for {{:fault, kind}, n} <- run.totals, into: %{}, do: {kind, n}
    handles = for {{:handles, what}, n} <- run.totals, into: %{}, do: {what, n}
    # Of nodes that are killed or cut off, and there should be no others.
    connections = for {{:connection, reason}, n} <- run.totals, into: %{}, do: {reason, n}
    items = for {{:items, what}, n} <- run.totals, into: %{}, do: {what, n}
    elements = for {{:elements, what}, n} <- run.totals, into: %{}, do: {what, n}
    dropped = Map.get(handles, :made, 0) - Map.get(handles, :released, 0)
    answered = Map.get(run.totals, {:ended, :answered}, 0)
    wrong = Map.get(run.totals, {:ended, :wrong}, 0)
    lost = blamed(run, :lost)
    all = sum(sent)

    zero = %{
      "lost" => lost,
      "answered twice" => blamed(run, :twice) + run.doubled,
      "wrong answers" => max(wrong, blamed(run, :wrong)),
      "handles lost" => blamed(run, :handles_lost),
      "handles alive at the end" => blamed(run, :handles_alive),
      "items lost" => blamed(run, :items_lost) + unaccounted(items),
      "items doubled" => blamed(run, :doubled),
      "items out of order" => blamed(run, :out_of_order),
      "elements lost" => blamed(run, :elements_lost) + unaccounted(elements),
      "elements out of order" => blamed(run, :elements_out_of_order),
      "generators open at the end" => blamed(run, :streams_open),
      "pools not at rest" => blamed(run, :pools_busy),
      "trackers not at rest" => blamed(run, :trackers_busy),
      "marked twice" => blamed(run, :marked_twice),
      "unaccounted for" => all - answered - wrong - lost - sum(failed),
      "processes left" => length(run.left),
      "figures that differ" => length(different(run))
    }

    good? = Enum.all?(zero, fn {_what, n} -> n == 0 end)

    IO.puts([
      section("calls sent: #{all}", sent),
      section("answered: #{answered}; failed: #{sum(failed)}, by cause", failed),
      section("faults: #{sum(faults)}", faults),
      section("connections lost, by reason", connections),
      section("handles of objects", Map.put(handles, :dropped, dropped)),
      section("items of streams", items),
      section("elements of maps", elements),
      section("must be 0", zero),
      for({what, details} <- run.details, detail <- Enum.reverse(details), do: "  #{what}: #{detail}\n"),
      for({pid, command} <- run.left, do: "  left: #{pid} #{inspect(command)}\n"),
      for(what <- different(run), do: "  differs: #{what}\n"),
      "\n",
      Figures.table([["", "before", "after"] | Figures.rows(run.before, run.now)])
    ])

    path =
      Figures.write!("soak", %{
        minutes: run.minutes,
        seed: run.seed,
        ms: run.ms,
        sent: sent,
        calls: all,
        answered: answered,
        failed: failed,
        faults: faults,
        connections: connections,
        handles: Map.put(handles, :dropped, dropped),
        items: items,
        elements: elements,
        must_be_0: zero,
        details: run.details,
        before: run.before,
        after: run.now
      })

    IO.puts("written to #{path}")

    IO.puts(
      if good?,
        do: "everything is accounted for",
        else: "NOT GOOD; repeat the choices with --seed #{run.seed}"
    )

    if good?, do: 0, else: 1
  end

  defp blamed(run, what), do: Map.get(run.totals, {:blame, what}, 0)

  # Items that were neither received nor dropped for a cause, or elements without a result.
  defp unaccounted(items) do
    {sent, rest} = Map.pop(items, :sent, 0)
    abs(sent - sum(rest))
  end

  defp sum(counts), do: counts |> Map.values() |> Enum.sum()

  defp section(title, counts) do
    rows = for {what, n} <- Enum.sort_by(counts, &elem(&1, 1), :desc), do: ["#{what}", "#{n}"]
    ["\n", title, "\n", Figures.table(rows)]
  end

  defp different(%{before: before, now: now}) do
    counts = for {what, n} <- now.counts, n != before.counts[what], do: what
    memory = for {what, n} <- now.memory, n - before.memory[what] > @slack, do: what
    counts ++ memory
  end
end
