# How well calls are spread over the nodes of a cluster, for more nodes than one machine can run. A simulation.
#
#   bin/bench --cluster            2 to 1,000 nodes, drawn into bench/results; takes ten minutes
#   bin/bench --cluster --quick    up to 16 nodes, only shows that it works
#
# Prints the waiting times of each rule. bench/NOTES.md says which rule follows from them.

for file <- ~w[support/stats support/plot], do: Code.require_file(Path.join(__DIR__, file <> ".ex"))

defmodule ClusterSim do
  @moduledoc """
  A discrete-event simulation of pools with the same name on many nodes, each with 16 members that serve one call at a time.

  Calls arrive at random (a Poisson process), at half of the nodes twice as often as at the others. Their times are heavy-tailed: a bounded Pareto distribution with
  exponent 1.5, whose longest time is 1,000 times the shortest. The mean is the unit of time. A node without a free member queues the call and
  serves its queue in order; a call stays on the node that it was sent to.

  The rules that choose a node:

    * `ideal`: one queue for all members of all nodes, without any delay. Nothing can be better.
    * `random`: any node.
    * `alone`: always the local node.
    * `sampled d`: the local node while it has room; otherwise the least loaded of it and `d` others, which are asked.
    * `told d, t`: the same, without asking: all nodes tell each other how loaded they are, with a time `t` in between, and count what they have
      sent since.

  Asking, and sending a call to another node, take `@hop` each way, which counts as waiting. On sampling two: Mitzenmacher, "The power of two choices in
  randomized load balancing", IEEE TPDS 12 (10), 2001; on old news: Mitzenmacher, "How useful is old information?", IEEE TPDS 11 (1), 2000.
  """

  alias Bench.{Plot, Stats}

  @members 16
  # How many of all members are busy, on average.
  @load 0.85
  # In units of the mean time of a call: half a millisecond, if that is 10 ms.
  @hop 0.05
  @exponent 1.5
  @longest 1_000

  @rules [
    :ideal,
    :random,
    :alone,
    {:sampled, 1},
    {:sampled, 2},
    {:sampled, 4},
    {:told, 2, 1},
    {:told, 2, 10},
    {:told, :all, 10}
  ]

  def main(args) do
    {opts, [], []} = OptionParser.parse(args, strict: [quick: :boolean])
    sizes = if opts[:quick], do: [2, 4, 16], else: [2, 4, 8, 16, 64, 250, 1_000]
    calls = if opts[:quick], do: 2_000, else: 300_000

    results =
      for nodes <- sizes, rule <- @rules do
        waits = run(rule, nodes, calls)
        result = {rule, nodes, Stats.mean(waits), Stats.quantile(waits, 0.5), Stats.quantile(waits, 0.99)}
        IO.puts(line(result))
        result
      end

    folder = if opts[:quick], do: System.tmp_dir!(), else: Path.join(__DIR__, "results")
    for {name, place} <- [p50: 3, p99: 4], do: draw(folder, name, place, results)
  end

  defp line({rule, nodes, mean, p50, p99}) do
    [mean, p50, p99] = for number <- [mean, p50, p99], do: :erlang.float_to_binary(number, decimals: 3)

    "#{String.pad_leading(to_string(nodes), 5)} nodes  #{String.pad_trailing(label(rule), 12)} mean #{String.pad_leading(mean, 8)}  p50 #{String.pad_leading(p50, 8)}  p99 #{String.pad_leading(p99, 8)}"
  end

  defp label({rule, count}), do: "#{rule} #{count}"
  defp label({rule, count, time}), do: "#{rule} #{count}, #{time}"
  defp label(rule), do: to_string(rule)

  # Waiting times of 0 have no place on a logarithmic axis.
  @least 0.01

  defp draw(folder, name, place, results) do
    lines =
      for {rule, own} <- Enum.group_by(results, &elem(&1, 0)),
          do: {label(rule), for(result <- own, do: {elem(result, 1), max(elem(result, place), @least)})}

    title = "load #{@load}, #{@members} members a node, unit: the mean time of a call"
    svg = Plot.svg("#{name} of the waiting time over nodes", title, Enum.sort(lines))
    File.mkdir_p!(folder)
    File.write!(Path.join(folder, "cluster_#{name}.svg"), svg)
  end

  ## The simulation

  # The waiting times of so many calls, after as many that only fill the queues.
  defp run(rule, nodes, calls) do
    :rand.seed(:exsss, {1, 2, 3})

    state = %{
      rule: rule,
      nodes: if(rule == :ideal, do: 1, else: nodes),
      members: if(rule == :ideal, do: nodes * @members, else: @members),
      # Calls that a node runs or has queued, by node, and when the queued ones arrived.
      loads: %{},
      queues: %{},
      # What the others know of each node, and when all tell next.
      known: %{},
      tell: 0.0,
      # Ends of calls, and arrivals behind a hop: {time, number, event}.
      events: :gb_sets.empty(),
      number: 0,
      waits: [],
      left: 2 * calls,
      count: calls
    }

    rate = @load * nodes * @members
    loop(state, exponential(rate), rate, nodes)
  end

  defp loop(%{left: 0} = state, _arrival, _rate, _nodes), do: state.waits

  defp loop(state, arrival, rate, nodes) do
    case next(state.events) do
      {{time, _number, event}, events} when time <= arrival ->
        loop(handle(event, time, %{state | events: events}), arrival, rate, nodes)

      _later ->
        state = state |> tell(arrival) |> arrive(arrival, nodes)
        loop(%{state | left: state.left - 1}, arrival + exponential(rate), rate, nodes)
    end
  end

  defp next(events), do: if(:gb_sets.is_empty(events), do: nil, else: :gb_sets.take_smallest(events))

  defp handle({:reaches, node, since}, time, state), do: reach(node, since, time, state)

  defp handle({:ends, node}, time, state) do
    state = %{state | loads: Map.update!(state.loads, node, &(&1 - 1))}

    case state.queues do
      %{^node => {[], []}} -> state
      %{^node => queue} -> unqueue(:queue.out(queue), node, time, state)
      _none -> state
    end
  end

  defp unqueue({{:value, since}, queue}, node, time, state),
    do: begin(node, since, time, %{state | queues: Map.put(state.queues, node, queue)})

  defp arrive(state, now, nodes) do
    local = origin(nodes)

    case choose(state.rule, local, state) do
      {node, 0} -> reach(node, now, now, state)
      {node, hops} -> state |> count_sent(node) |> add(now + hops * @hop, {:reaches, node, now})
    end
  end

  # Half of the nodes get two thirds of all calls.
  defp origin(nodes) do
    half = div(nodes, 2)
    if :rand.uniform(3) < 3, do: :rand.uniform(half), else: half + :rand.uniform(nodes - half)
  end

  defp choose(:ideal, _local, _state), do: {1, 0}
  defp choose(:alone, local, _state), do: {local, 0}

  defp choose(:random, local, state) do
    node = :rand.uniform(state.nodes)
    {node, if(node == local, do: 0, else: 1)}
  end

  defp choose(rule, local, state) do
    {how, count} = {elem(rule, 0), elem(rule, 1)}
    load = load(state, local)

    if load < state.members do
      {local, 0}
    else
      {loads, hops} = if how == :sampled, do: {state.loads, 3}, else: {state.known, 1}
      others = others(count, local, state.nodes)
      # Of those that are equally loaded, any.
      {least, _random, node} = others |> Enum.map(&{Map.get(loads, &1, 0), :rand.uniform(), &1}) |> Enum.min()

      # A node that has asked without success has waited for the answers all the same.
      cond do
        least < load -> {node, hops}
        how == :sampled -> {local, 2}
        true -> {local, 0}
      end
    end
  end

  defp others(:all, local, nodes), do: Enum.reject(1..nodes, &(&1 == local))
  defp others(count, local, nodes) when count >= nodes - 1, do: others(:all, local, nodes)

  defp others(count, local, nodes) do
    # Without `local`, and each once.
    Stream.repeatedly(fn -> :rand.uniform(nodes) end)
    |> Stream.reject(&(&1 == local))
    |> Stream.uniq()
    |> Enum.take(count)
  end

  # As if all nodes had the same clock, and one list of what the others know: what each has sent itself, all count.
  defp tell(%{rule: {:told, _count, time}, tell: tell} = state, now) when now >= tell,
    do: %{state | known: state.loads, tell: now + time}

  defp tell(state, _now), do: state
  defp count_sent(state, node), do: %{state | known: Map.update(state.known, node, 1, &(&1 + 1))}

  defp reach(node, since, now, state) do
    if load(state, node) < state.members do
      begin(node, since, now, %{state | loads: Map.update(state.loads, node, 1, &(&1 + 1))})
    else
      %{
        state
        | loads: Map.update!(state.loads, node, &(&1 + 1)),
          queues: Map.update(state.queues, node, :queue.from_list([since]), &:queue.in(since, &1))
      }
    end
  end

  defp begin(node, since, now, state) do
    state = add(state, now + service(), {:ends, node})
    if state.left < state.count, do: %{state | waits: [now - since | state.waits]}, else: state
  end

  defp load(state, node), do: Map.get(state.loads, node, 0)

  defp add(state, time, event) do
    %{state | events: :gb_sets.add({time, state.number, event}, state.events), number: state.number + 1}
  end

  defp exponential(rate), do: -:math.log(1.0 - :rand.uniform()) / rate

  # A bounded Pareto distribution by its inverse, with mean 1.
  @tail :math.pow(1 / @longest, @exponent)
  @mean @exponent / (@exponent - 1) * (1 - :math.pow(1 / @longest, @exponent - 1)) / (1 - @tail)
  defp service, do: :math.pow(1 - :rand.uniform() * (1 - @tail), -1 / @exponent) / @mean
end

ClusterSim.main(System.argv())
