defmodule Snex.Project.Uv do
  # Runs the program uv.
  @moduledoc false

  alias Snex.Os
  alias Snex.Project.Advice
  alias Snex.Project.Progress

  @oldest "0.6.8"

  @doc """
  Whether `uv` (a name or a path) can be run and is new enough; if not, what to install.
  """
  @spec check(String.t()) :: :ok | {:error, String.t()}
  def check(uv) do
    with path when is_binary(path) <- Os.find_executable(uv),
         {output, 0} <- System.cmd(path, ["--version"], stderr_to_stdout: true),
         [_, version] <- Regex.run(~r/^uv (\d+\.\d+\.\d+)/m, output) do
      if Version.compare(version, @oldest) == :lt do
        {:error, "`#{uv}` is uv #{version}. #{install()}"}
      else
        :ok
      end
    else
      nil ->
        {:error, "there is no program `#{uv}`. #{install()}"}

      {output, status} ->
        {:error, "`#{uv} --version` ended with status #{status}. #{install()}\n\n#{output}"}

      _ ->
        {:error, "`#{uv} --version` does not look like uv. #{install()}"}
    end
  end

  defp install do
    "Snex installs Python and its packages with uv #{@oldest} or later, " <>
      "see https://docs.astral.sh/uv/getting-started/installation/"
  end

  @doc """
  Runs uv in `dir`, and shows what it says line by line as it comes, each after `prefix`. What it says of a failure is not
  shown but part of the error, and so is read once, wherever the error is read.

  uv and what it starts run below a warden: they end with this VM and with the calling process. Unless that process traps exits,
  an exit signal ends it only when they are gone.
  """
  @spec run(String.t(), [String.t()], Path.t(), %{String.t() => String.t() | nil}, String.t()) ::
          :ok | {:error, String.t()}
  def run(uv, args, dir, env, prefix) do
    trapping? = Process.flag(:trap_exit, true)

    port =
      Port.open({:spawn_executable, Os.characters(Os.app_dir(:snex, "priv/native/snex_warden"))}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, 65_536},
        args: [Path.expand(Os.find_executable(uv)) | args],
        cd: dir,
        env: Enum.map(env, &port_variable/1)
      ])

    ended = follow(port, prefix, trapping?, [], [])
    Process.flag(:trap_exit, trapping?)

    case ended do
      {0, lines} ->
        Enum.each(held(lines), &show(prefix, &1))

      {status, lines} ->
        # A program that is not quite uv may have another way to complain: then all of it.
        lines = with [] <- held(lines), do: lines

        {:error,
         """
         this command ended with status #{status}:

             #{Enum.join([uv | args], " ")}

         in #{dir}, and said:

         #{Enum.map_join(lines, "\n", &"    #{&1}")}
         """
         |> then(&(&1 <> Advice.about(&1)))}
    end
  end

  # nil: without that variable.
  defp port_variable({name, nil}), do: {Os.characters(name), false}
  defp port_variable({name, value}), do: {Os.characters(name), Os.characters(value)}

  # Returns the exit status, and all lines.
  defp follow(port, prefix, trapping?, part, lines) do
    receive do
      {^port, {:data, {:noeol, more}}} ->
        follow(port, prefix, trapping?, [part, more], lines)

      {^port, {:data, {:eol, more}}} ->
        follow(port, prefix, trapping?, [], add(prefix, [part, more], lines))

      {^port, {:exit_status, status}} ->
        lines = if part == [], do: lines, else: add(prefix, part, lines)
        # The port closes now. Nobody wants to know.
        receive do: ({:EXIT, ^port, _reason} -> :ok)
        {status, Enum.reverse(lines)}

      {:EXIT, pid, :normal} when is_pid(pid) and not trapping? ->
        follow(port, prefix, trapping?, part, lines)

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

  defp add(prefix, line, lines) do
    line = line |> IO.iodata_to_binary() |> String.replace_invalid()
    lines = [line | lines]
    if held(Enum.reverse(lines)) == [], do: show(prefix, line)
    lines
  end

  # From the line on with which uv begins to say what is wrong.
  defp held(lines), do: Enum.drop_while(lines, &(not (&1 =~ ~r/^\s*(error:|×)/)))

  # Meant for people in a shell: here nobody needs to activate anything.
  defp show(prefix, line),
    do: unless(String.starts_with?(line, "Activate with:"), do: Progress.puts(prefix <> line))
end
