defmodule Snex.ProcessTree do
  @moduledoc """
  Processes of the operating system: which there are, and when they are gone. Linux only.
  """

  import ExUnit.Assertions

  # Linux tells the end of a process through a descriptor for it (pidfd_open(2)), so nothing is polled, and no other
  # process that gets the same number is taken for it.
  @watcher """
  import os, select, sys, time
  def pidfd_open(pid):
      if hasattr(os, "pidfd_open"):
          return os.pidfd_open(pid)
      # PyPy has no name for it; the number is the same on every machine.
      import ctypes
      fd = ctypes.CDLL(None, use_errno=True).syscall(434, pid, 0)
      if fd < 0:
          raise OSError(ctypes.get_errno(), "pidfd_open")
      return fd
  left = {}
  for pid in map(int, sys.argv[1:]):
      try:
          left[pidfd_open(pid)] = pid
      except ProcessLookupError:
          pass
  print("watching", flush=True)
  end = time.monotonic() + 60
  poll = select.poll()
  for fd in left:
      poll.register(fd, select.POLLIN)
  while left:
      ended = poll.poll(max(0, end - time.monotonic()) * 1000)
      if not ended:
          break
      for fd, _ in ended:
          poll.unregister(fd)
          del left[fd]
  print("left", time.time_ns() // 1000, *left.values(), flush=True)
  """

  @doc """
  Begins to watch processes; `await_end/1` tells when they have all ended.
  """
  def watch(os_pids) do
    {_name, python} = hd(Snex.Case.pythons())

    port =
      Port.open({:spawn_executable, System.find_executable(python)}, [
        :binary,
        line: 100_000,
        args: ["-c", @watcher | Enum.map(os_pids, &to_string/1)]
      ])

    assert line(port) == "watching"
    port
  end

  @doc """
  Waits until all processes that are watched have ended (reaped or not), and returns when that was, as
  `System.os_time(:microsecond)`. Fails when they have not after a minute.
  """
  def await_end(watcher) do
    assert ["left", time | left] = String.split(line(watcher))
    assert left == [], "processes live on: #{Enum.map_join(left, "\n", &describe/1)}"
    String.to_integer(time)
  end

  defp line(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
    after
      90_000 -> flunk("the watcher says nothing")
    end
  end

  defp describe(os_pid) do
    "#{os_pid} #{with {:ok, text} <- File.read("/proc/#{os_pid}/cmdline"), do: String.replace(text, "\0", " ")}"
  end

  @doc """
  All descendants of a process.
  """
  def descendants(root) do
    parents =
      for name <- File.ls!("/proc"),
          {os_pid, ""} <- [Integer.parse(name)],
          parent = parent(os_pid),
          do: {os_pid, parent}

    descendants([root], Enum.group_by(parents, &elem(&1, 1), &elem(&1, 0)))
  end

  defp descendants(parents, children) do
    case Enum.flat_map(parents, &Map.get(children, &1, [])) do
      [] -> []
      found -> found ++ descendants(found, children)
    end
  end

  @doc """
  All processes that have this variable, a string such as `"NAME=value"`, in the environment that they were started with.
  """
  def with_variable(variable) do
    for name <- File.ls!("/proc"),
        {os_pid, ""} <- [Integer.parse(name)],
        {:ok, environment} <- [File.read("/proc/#{os_pid}/environ")],
        variable in String.split(environment, "\0"),
        do: os_pid
  end

  @doc """
  The parent of a process; nil when there is no such process.
  """
  def parent(os_pid),
    do: with(fields when is_list(fields) <- stat(os_pid), do: fields |> Enum.at(1) |> String.to_integer())

  @doc """
  The fields of `/proc/PID/stat` behind the command, from the state on; nil when there is no such process.
  """
  def stat(os_pid) do
    with {:ok, text} <- File.read("/proc/#{os_pid}/stat") do
      text |> String.split(") ") |> List.last() |> String.split()
    else
      {:error, _} -> nil
    end
  end
end
