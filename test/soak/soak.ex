defmodule Snex.Soak do
  @moduledoc """
  Mixed traffic over several interpreters on two nodes, while everything in it is killed at random. Ends with a ledger.

  `bin/soak` runs it. The other modules here are its parts: `Fleet` has what is killed, `Traffic` and `Caller` who calls,
  `Requests`, `Objects`, `Streams`, `Maps` and `Own` what they ask and what is right, `Faults` kills, `Ledger` knows what became of each call, `Rest` looks for what is left, `Report`
  says so.
  """

  alias Snex.Figures
  alias Snex.Peer
  alias Snex.Soak.Faults
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Report
  alias Snex.Soak.Rest
  alias Snex.Soak.Traffic

  # Callers on each node.
  @callers 12
  @warm_up 4_000
  # How long a call may take to end when nothing is killed any more, in ms: none waits for this long.
  @patience 60_000

  @usage "usage: bin/soak MINUTES [--seed N]"

  def main(args) do
    {minutes, seed} = arguments(args)
    # Interpreters that end are what this is about.
    Logger.configure(level: :none)
    Figures.load_modules()
    Peer.become_node!()
    # Starts the VM's own helpers for this.
    {:ok, _address} = :inet.getaddr(~c"localhost", :inet)
    others = MapSet.new(Figures.os_pids())

    # What is loaded and allocated once is there afterwards.
    _warm = round(@warm_up, seed)
    left_over = fn -> Enum.reject(marked(), &(&1 in others)) end
    _gone = wait_until_gone(left_over)
    before = Figures.rest!([])

    IO.puts("#{minutes} min, seed #{seed}")
    {time, run} = :timer.tc(fn -> round(Kernel.round(minutes * 60_000), seed) end, :millisecond)

    left = wait_until_gone(left_over)
    now = Figures.settle(before)
    run = Map.merge(run, %{minutes: minutes, seed: seed, ms: time, left: left, before: before, now: now})
    status = Report.write(run)
    System.halt(status)
  end

  defp arguments(args) do
    {opts, rest, wrong} = OptionParser.parse(args, strict: [seed: :integer])

    with [] <- wrong,
         [text] <- rest,
         {minutes, ""} when minutes > 0 <- Float.parse(text),
         seed when seed >= 0 <- Keyword.get_lazy(opts, :seed, fn -> :rand.uniform(1_000_000) end) do
      {minutes, seed}
    else
      [{option, _value} | _] -> stop("what is #{option}? --seed takes a number")
      [] -> stop("for how long?")
      [_, _ | _] = rest -> stop("what is #{rest |> tl() |> Enum.join(" ")}?")
      seed when is_integer(seed) -> stop("--seed takes a number from 0 on, not #{seed}")
      _no_minutes -> stop("#{inspect(hd(rest))} is no number of minutes, such as 10 or 0.5")
    end
  end

  defp stop(message) do
    IO.puts(:stderr, [message, "\n", @usage])
    System.halt(2)
  end

  # Everything is started, runs for a while, and is stopped again.
  defp round(duration, seed) do
    {:ok, ledger} = Ledger.start_link()
    {:ok, supervisor} = Fleet.start_here()
    {node, _control, _os_pid} = other = Fleet.start_there()
    {:ok, traffic} = Traffic.start_link(seed, Fleet.names(node), @callers)
    Enum.each([node(), node], &Traffic.add_node/1)

    deadline = System.monotonic_time(:millisecond) + duration
    {_node, control, _os_pid} = Faults.run(seed, deadline, other)

    stuck = Traffic.finish(@patience)
    # Callers that are no part of the traffic may still be at it.
    Ledger.close_lost(if(stuck == [], do: @patience, else: 0))

    Rest.check(node)
    Fleet.stop(node)
    Fleet.stop(node())
    Traffic.check(stuck)
    Peer.stop_node(control)
    {totals, details, doubled} = Ledger.totals()
    for process <- [traffic, ledger], do: GenServer.stop(process)
    false = Process.alive?(supervisor)
    %{totals: totals, details: details, doubled: doubled}
  end

  # Processes of the system that bear the mark of this run: in their environment, or in their name.
  defp marked do
    mark = System.fetch_env!("SNEX_SOAK_MARK")

    for pid <- Figures.os_pids(),
        pid != String.to_integer(System.pid()),
        Enum.any?(["environ", "cmdline"], &bears?(mark, "/proc/#{pid}/#{&1}")),
        do: pid
  end

  defp bears?(mark, file) do
    case File.read(file) do
      {:ok, text} -> String.contains?(text, mark)
      {:error, _gone} -> false
    end
  end

  defp command(pid) do
    case File.read("/proc/#{pid}/cmdline") do
      {:ok, line} -> line |> String.replace(<<0>>, " ") |> String.trim()
      {:error, _gone} -> "gone meanwhile"
    end
  end

  # A killed tree has a second; this waits for longer, and returns those that are still there.
  defp wait_until_gone(left_over, attempts \\ 1_000) do
    case left_over.() do
      [] ->
        []

      left when attempts == 0 ->
        for pid <- left, do: {pid, command(pid)}

      _left ->
        Process.sleep(10)
        wait_until_gone(left_over, attempts - 1)
    end
  end
end
