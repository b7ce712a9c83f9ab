defmodule Snex.Project.Hold do
  # Keeps the environments of modules that are being compiled. They are on disk before the modules are, and without a hold
  # `Snex.Project.Tidy` would take them for leftovers of removed modules.
  #
  # A VM that compiles writes the names of these projects to a file below `<root>/compiling`. One of its processes touches the
  # file once a second, until the modules are on disk or the VM ends. `Snex.Project.Lock` explains why the time of the last
  # touch decides, and not the process id.
  @moduledoc false

  alias Snex.Project.Files

  @beat 1_000
  # In seconds. Many beats, because some come late on a busy machine; a leftover that is kept a little longer does no harm.
  @dead_after 60

  @doc """
  Holds a project, until `release/1` or the end of this VM.
  """
  @spec acquire(Path.t(), String.t()) :: :ok
  def acquire(root, name) do
    true = call({:acquire, root, name})
    :ok
  end

  @doc """
  Ends all holds of this VM below `root`. Returns whether there were any.
  """
  @spec release(Path.t()) :: boolean()
  def release(root), do: call({:release, root})

  @doc """
  The names of the projects below `root` that this VM or another one holds.
  """
  @spec held_projects(Path.t()) :: MapSet.t(String.t())
  def held_projects(root) do
    for name <- Files.names(folder(root)),
        path = Path.join(folder(root), name),
        alive?(path),
        {:ok, names} <- [File.read(path)],
        name <- String.split(names, "\n", trim: true),
        into: MapSet.new(),
        do: name
  end

  defp alive?(path) do
    case File.stat(path, time: :posix) do
      {:ok, stat} ->
        alive? = System.os_time(:second) - stat.mtime <= @dead_after
        if not alive?, do: File.rm(path)
        alive?

      {:error, _} ->
        false
    end
  end

  defp folder(root), do: Path.join(root, "compiling")

  ## The process

  defp call(request) do
    holder = holder()
    monitor = Process.monitor(holder)
    send(holder, {request, self(), monitor})

    receive do
      {^monitor, {:ok, answer}} ->
        Process.demonitor(monitor, [:flush])
        answer

      {^monitor, {:error, error}} ->
        Process.demonitor(monitor, [:flush])
        raise error

      {:DOWN, ^monitor, :process, _, reason} ->
        exit(reason)
    end
  end

  # One for the whole VM, and not linked: compilers end while what they compile is held.
  defp holder do
    pid = spawn(fn -> receive do: (:begin -> loop(%{})) end)

    try do
      Process.register(pid, __MODULE__)
      send(pid, :begin)
      System.at_exit(fn _status -> call(:release_all) end)
      pid
    rescue
      ArgumentError ->
        Process.exit(pid, :kill)
        Process.whereis(__MODULE__) || holder()
    end
  end

  @doc false
  def loop(holds) do
    receive do
      {request, from, tag} ->
        {answer, holds} =
          try do
            {answer, holds} = handle(request, holds)
            {{:ok, answer}, holds}
          rescue
            error in File.Error -> {{:error, error}, holds}
          end

        send(from, {tag, answer})
        __MODULE__.loop(holds)
    after
      @beat ->
        for {_root, {path, _names}} <- holds, do: File.touch(path)
        __MODULE__.loop(holds)
    end
  end

  defp handle({:acquire, root, name}, holds) do
    {path, names} = Map.get_lazy(holds, root, fn -> {Path.join(folder(root), unique()), []} end)
    names = Enum.uniq([name | names])
    File.mkdir_p!(folder(root))
    File.write!(path, Enum.join(names, "\n"))
    {true, Map.put(holds, root, {path, names})}
  end

  defp handle({:release, root}, holds) do
    {hold, holds} = Map.pop(holds, root)
    with {path, _names} <- hold, do: File.rm(path)
    {hold != nil, holds}
  end

  defp handle(:release_all, holds) do
    for {_root, {path, _names}} <- holds, do: File.rm(path)
    {true, %{}}
  end

  defp unique, do: "#{System.pid()}-#{System.os_time()}"
end
