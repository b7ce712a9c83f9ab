defmodule Snex.Project.Uv do
  # Runs the program uv.
  @moduledoc false

  alias Snex.Os
  alias Snex.Project.Advice
  alias Snex.Project.Program
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
        {:error, "there is no program `#{uv}`#{elsewhere(uv) || ". " <> install()}"}

      {output, status} ->
        {:error, "`#{uv} --version` ended with status #{status}. #{install()}\n\n#{output}"}

      _ ->
        {:error, "`#{uv} --version` does not look like uv. #{install()}"}
    end
  end

  # Where uv's installer, pip, cargo and bin/setup put programs for one user: many a shell looks there only after the next login.
  defp elsewhere(uv) do
    with home when is_binary(home) <- System.user_home(),
         false <- String.contains?(uv, "/"),
         folders = Enum.map([".local/bin", ".cargo/bin"], &Path.join(home, &1)),
         folder when is_binary(folder) <- Enum.find(folders, &Os.find_executable(Path.join(&1, uv))) do
      " on PATH, but there is one in #{folder}. Type this, and add it to ~/.profile:\n\n" <>
        "    export PATH=\"#{folder}:$PATH\"\n"
    else
      _nowhere -> nil
    end
  end

  defp install do
    "Snex installs Python and its packages with uv #{@oldest} or later, " <>
      "see https://docs.astral.sh/uv/getting-started/installation/"
  end

  @doc """
  Runs uv in `dir`, and shows what it says line by line as it comes, each after `prefix`. What it says of a failure is not
  shown but part of the error, and so is read once, wherever the error is read.

  It runs as `Snex.Project.Program` says.
  """
  @spec run(String.t(), [String.t()], Path.t(), %{String.t() => String.t() | nil}, String.t()) ::
          :ok | {:error, String.t()}
  def run(uv, args, dir, env, prefix) do
    # What uv says of a failure comes last: from there on nothing is shown.
    ended =
      Program.run(Os.find_executable(uv), args, dir, env, fn line, lines ->
        if failure_lines(Enum.reverse([line | lines])) == [], do: show(prefix, line)
      end)

    case ended do
      {0, lines} ->
        Enum.each(failure_lines(lines), &show(prefix, &1))

      {status, lines} ->
        # A program that is not quite uv may have another way to complain: then all of it.
        lines = with [] <- failure_lines(lines), do: lines

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

  # The lines from the first with which uv says what is wrong.
  defp failure_lines(lines), do: Enum.drop_while(lines, &(not (&1 =~ ~r/^\s*(error:|×)/)))

  # Meant for people in a shell: here nobody needs to activate anything.
  defp show(prefix, line),
    do: unless(String.starts_with?(line, "Activate with:"), do: Progress.puts(prefix <> line))
end
