defmodule Snex.Project.Program do
  # Runs a program of the project, such as uv or its Python, to its end.
  @moduledoc false

  alias Snex.Os

  @doc """
  Runs a program in `dir`, with these variables beside those of the VM; `nil` unsets one. Calls `each` with each line that it
  prints and the lines before it, the last one first. Returns the exit status, and all lines.

  The program and what it starts run below a warden: they end with this VM and with the calling process. Unless that process
  traps exits, an exit signal ends it only when they are gone.
  """
  @spec run(Path.t(), [String.t()], Path.t(), %{String.t() => String.t() | nil}, (String.t(), [String.t()] ->
                                                                                    term())) ::
          {status :: non_neg_integer(), lines :: [String.t()]}
  def run(path, args, dir, env, each) do
    trapping? = Process.flag(:trap_exit, true)

    port =
      Port.open({:spawn_executable, Os.characters(Os.app_dir(:snex, "priv/native/snex_warden"))}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, 65_536},
        args: [Path.expand(path) | args],
        cd: dir,
        env: Enum.map(env, &port_variable/1)
      ])

    ended = follow(port, each, trapping?, [], [])
    Process.flag(:trap_exit, trapping?)
    ended
  end

  # nil: without that variable.
  defp port_variable({name, nil}), do: {Os.characters(name), false}
  defp port_variable({name, value}), do: {Os.characters(name), Os.characters(value)}

  # Returns the exit status, and all lines.
  defp follow(port, each, trapping?, part, lines) do
    receive do
      {^port, {:data, {:noeol, more}}} ->
        follow(port, each, trapping?, [part, more], lines)

      {^port, {:data, {:eol, more}}} ->
        follow(port, each, trapping?, [], add(each, [part, more], lines))

      {^port, {:exit_status, status}} ->
        lines = if part == [], do: lines, else: add(each, part, lines)
        # The port closes now. Nobody wants to know.
        receive do: ({:EXIT, ^port, _reason} -> :ok)
        {status, Enum.reverse(lines)}

      {:EXIT, pid, :normal} when is_pid(pid) and not trapping? ->
        follow(port, each, trapping?, part, lines)

      {:EXIT, pid, reason} when is_pid(pid) and not trapping? ->
        stop(port)
        exit(reason)
    end
  end

  # The warden takes anything for a request to end.
  defp stop(port) do
    Port.command(port, "stop")

    receive do
      {^port, {:exit_status, _status}} -> :ok
    end
  catch
    # It has just ended.
    :error, :badarg -> :ok
  end

  defp add(each, line, lines) do
    line = line |> IO.iodata_to_binary() |> String.replace_invalid()
    each.(line, lines)
    [line | lines]
  end
end
