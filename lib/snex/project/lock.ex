defmodule Snex.Project.Lock do
  # A lock between operating system processes: a folder that exists while the lock is held.
  #
  # A process, the *heart* of the lock, touches the folder once a second. A lock that nobody has touched for some seconds was left
  # behind by a VM that is gone, and is removed. It would be quicker to ask whether the VM's process still exists, but a process id
  # means nothing in another container or on another machine that shares the folder.
  @moduledoc false

  alias Snex.Project.Private
  alias Snex.Project.Progress

  defmodule Heart do
    @moduledoc false
    # Touches a lock as long as its holder lives, and releases it then.

    use GenServer

    @beat 1_000

    @impl GenServer
    def init({_path, _owner, holder} = state) do
      Process.monitor(holder)
      {:ok, state, @beat}
    end

    @impl GenServer
    def handle_info(:timeout, {path, _owner, _holder} = state) do
      File.touch(path)
      {:noreply, state, @beat}
    end

    # What a holder has started ends a little later than one that is killed: the lock is left to be abandoned.
    def handle_info({:DOWN, _monitor, :process, _holder, :killed}, state),
      do: {:stop, {:shutdown, :abandoned}, state}

    def handle_info({:DOWN, _monitor, :process, _holder, _reason}, state), do: {:stop, :normal, state}
    def handle_info(_message, state), do: {:noreply, state, @beat}

    @impl GenServer
    def terminate(:normal, {path, owner, _holder}), do: if(File.rm(owner) == :ok, do: File.rmdir(path))
    def terminate(_abandoned, _state), do: :ok
  end

  @poll 200
  @abandoned_after 5_000

  @doc """
  Runs `fun` while holding the lock at `path`, and returns its result. Waits without limit for a holder that lives;
  `what` tells the user what is waited for.
  """
  @spec with_lock(Path.t(), String.t(), (-> result)) :: result when result: var
  def with_lock(path, what, fun) do
    File.mkdir_p!(Path.dirname(path))
    acquire(path, what)

    # Tells this holder from one that took the lock away from a VM that was suspended.
    owner = Path.join(path, unique())
    File.touch!(owner)
    {:ok, heart} = GenServer.start(Heart, {path, owner, self()})

    try do
      fun.()
    after
      # Releases the lock.
      GenServer.stop(heart)
    end
  end

  defp acquire(path, what) do
    with {:error, :eexist} <- Private.make(path) do
      wait(path, what, touched(path), now(), false)
    else
      :ok -> :ok
      {:error, reason} -> raise File.Error, path: path, reason: reason, action: "make lock"
    end
  end

  # `seen`: how the lock looked when it last changed, `since` then.
  defp wait(path, what, seen, since, told?) do
    if not told?, do: Progress.puts("Waiting for another process that is making #{what}")
    Process.sleep(@poll)

    cond do
      Private.make(path) == :ok ->
        :ok

      touched(path) != seen ->
        wait(path, what, touched(path), now(), true)

      now() - since > @abandoned_after ->
        # Of several that wait, one gets it, and all of them start over.
        abandoned = "#{path}.#{unique()}"
        if File.rename(path, abandoned) == :ok, do: File.rm_rf!(abandoned)
        acquire(path, what)

      true ->
        wait(path, what, seen, since, true)
    end
  end

  # nil when there is none any more.
  defp touched(path) do
    case File.stat(path, time: :posix) do
      {:ok, stat} -> {stat.inode, stat.mtime}
      {:error, _} -> nil
    end
  end

  defp unique, do: "#{System.pid()}-#{:erlang.unique_integer([:positive])}-#{System.os_time()}"
  defp now, do: System.monotonic_time(:millisecond)
end
