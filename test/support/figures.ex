defmodule Snex.Figures do
  @moduledoc """
  What this VM and its Pythons hold: figures that are the same before and after, whatever happened in between.

  Most are counts, and exactly the same once everything has come to rest. Memory is not: allocators keep what they got,
  and hand it out again. It may differ by a slack that does not grow with the number of rounds.

  For tests that are not `async`: the counts are those of the whole VM.
  """

  import ExUnit.Assertions

  alias Snex.Case
  alias Snex.Interpreter
  alias Snex.Native

  @type t() :: %{counts: %{String.t() => integer()}, memory: %{String.t() => integer()}}

  # Attempts, 10 ms apart: threads and processes of the system need time to go.
  @attempts 500

  # Collects garbage in Python, and counts the dictionaries of environments and the objects that it keeps by itself.
  @collect """
  import gc
  from snex._eval import objects
  from snex._eval.envs import Envs
  gc.collect()
  return len(objects.table) + sum(len(object._envs) for object in gc.get_objects() if type(object) is Envs)
  """

  @doc """
  Loads what would be loaded the first time it is used: its atoms are no leak.
  """
  def load_modules do
    for {app, _, _} <- Application.loaded_applications(),
        module <- Application.spec(app, :modules),
        do: Code.ensure_loaded(module)

    :ok
  end

  @doc """
  The figures of this VM and of some of its interpreters, after a garbage collection of everything.
  """
  @spec take([pid()]) :: t()
  def take(interpreters \\ []) do
    kept = for inp <- interpreters, do: Snex.pyeval!(inp, @collect, timeout: 60_000)
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    infos = for inp <- interpreters, do: Interpreter.info(inp)

    %{
      counts:
        infos
        |> Enum.zip_with(kept, &Map.put(python_counts(&1), "python: dictionaries and objects kept", &2))
        |> Enum.reduce(vm_counts(), &Map.merge(&1, &2, fn _, a, b -> a + b end)),
      memory: %{
        "vm: in use" => :erlang.memory(:total),
        "vm: resident" => resident("self"),
        "python: resident" => infos |> Enum.map(& &1.memory) |> Enum.sum()
      }
    }
  end

  defp vm_counts do
    nif = for {name, count} <- Native.resources_count(), into: %{}, do: {"nif: #{name}", count}

    Map.merge(nif, %{
      "vm: descriptors" => entries("self", "fd"),
      "vm: threads" => entries("self", "task"),
      "vm: processes" => :erlang.system_info(:process_count),
      "vm: ports" => :erlang.system_info(:port_count),
      "vm: tables" => :erlang.system_info(:ets_count),
      "vm: atoms" => :erlang.system_info(:atom_count),
      "os: processes" => length(trees())
    })
  end

  defp python_counts(info) do
    %{
      "python: descriptors" => entries(info.os_pid, "fd"),
      "python: threads" => entries(info.os_pid, "task"),
      "python: environments" => info.environments,
      "python: objects" => info.objects,
      "python: requests" => info.requests_in_flight,
      "python: queued" => info.queued
    }
  end

  defp entries(pid, what), do: length(File.ls!("/proc/#{pid}/#{what}"))

  defp resident(pid) do
    [_size, pages | _] = "/proc/#{pid}/statm" |> File.read!() |> String.split()
    String.to_integer(pages) * 4096
  end

  # The wardens of this VM, and all that is below them.
  defp trees do
    parents = for pid <- os_pids(), parent = parent(pid), do: {pid, parent}
    children = Enum.group_by(parents, &elem(&1, 1), &elem(&1, 0))
    vm = String.to_integer(System.pid())

    wardens =
      for pid <- Map.get(children, vm, []), File.read("/proc/#{pid}/comm") == {:ok, "snex_warden\n"}, do: pid

    Enum.flat_map(wardens, &tree(&1, children))
  end

  defp tree(root, children), do: [root | Enum.flat_map(Map.get(children, root, []), &tree(&1, children))]

  @doc """
  The numbers of all processes of the system.
  """
  @spec os_pids() :: [pos_integer()]
  def os_pids, do: for(name <- File.ls!("/proc"), {pid, ""} <- [Integer.parse(name)], do: pid)

  @doc """
  The parent of a process of the system; `nil` when it is gone, or a zombie that only waits to be reaped.
  """
  @spec parent(pos_integer()) :: pos_integer() | nil
  def parent(pid) do
    with {:ok, stat} <- File.read("/proc/#{pid}/stat"),
         # The command stands in parentheses, and may have such itself.
         [state, parent | _] when state != "Z" <- stat |> String.split(")") |> List.last() |> String.split() do
      String.to_integer(parent)
    else
      _gone -> nil
    end
  end

  @doc """
  Sends a signal to a process of the system; whether it was there.
  """
  @spec kill(String.t(), pos_integer()) :: boolean()
  def kill(signal, pid),
    do: match?({_output, 0}, System.cmd("kill", ["-#{signal}", to_string(pid)], stderr_to_stdout: true))

  @doc """
  Waits until nothing goes on in this VM, whose only interpreters are these: what has been killed is gone, what was
  cancelled has noticed. Returns the figures.
  """
  @spec rest!([pid()]) :: t()
  def rest!(interpreters) do
    rest? = fn ->
      counts = take(interpreters).counts
      busy = for what <- ~w[pending cancelling alive], do: counts["nif: " <> what]

      # Worker threads of Python's stay for some seconds.
      busy == [0, 0, 0] and counts["nif: workers"] == length(interpreters) and
        counts["os: processes"] == 2 * length(interpreters) and
        Map.get(counts, "python: threads", 0) == length(interpreters)
    end

    Case.eventually(rest?, 300, fn -> inspect(take(interpreters), pretty: true) end)

    take(interpreters)
  end

  @doc """
  Waits until the counts are those of `before`, and returns the figures, also when they never are.
  """
  @spec settle(t(), [pid()]) :: t()
  def settle(before, interpreters \\ [], attempts \\ @attempts) do
    now = take(interpreters)

    if now.counts == before.counts or attempts == 0 do
      now
    else
      receive do
      after
        10 -> settle(before, interpreters, attempts - 1)
      end
    end
  end

  @doc """
  Fails unless the counts are the same, and memory has grown by less than `slack` bytes.
  """
  def assert_same(before, now, slack) do
    for {what, count} <- now.counts do
      assert count == before.counts[what], "#{what}: #{before.counts[what]} before, #{count} after"
    end

    for {what, bytes} <- now.memory do
      grown = bytes - before.memory[what]
      assert grown < slack, "#{what} has grown by #{mib(grown)} MiB"
    end
  end

  @doc """
  Rows of a table: each figure, before and after.
  """
  @spec rows(t(), t()) :: [[String.t()]]
  def rows(before, now) do
    counts = for {what, count} <- Enum.sort(now.counts), do: [what, "#{before.counts[what]}", "#{count}"]

    memory =
      for {what, bytes} <- Enum.sort(now.memory), do: ["#{what}, MiB", mib(before.memory[what]), mib(bytes)]

    counts ++ memory
  end

  defp mib(bytes), do: :erlang.float_to_binary(bytes / 1024 / 1024, decimals: 1)

  @doc """
  A table as text; the first column is names, the others are numbers.
  """
  @spec table([[String.t()]]) :: iodata()
  def table(rows) do
    widths = rows |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for [name | numbers] <- rows do
      cells =
        for {number, width} <- Enum.zip(numbers, tl(widths)), do: ["  ", String.pad_leading(number, width)]

      ["  ", String.pad_trailing(name, hd(widths)), cells, "\n"]
    end
  end

  @doc """
  Writes a map as JSON below the build folder, and returns the path.
  """
  @spec write!(String.t(), map()) :: Path.t()
  def write!(name, map) do
    path = Path.join([Path.dirname(Mix.Project.build_path()), "reliability", name <> ".json"])
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, JSON.encode!(map))
    Path.relative_to_cwd(path)
  end
end
