defmodule Mix.Tasks.Snex.Doctor do
  @shortdoc "Checks what Snex needs, and says what to do"

  @moduledoc """
  Checks what Snex needs on this machine and in this project, and prints one line for each: good, or what to do about
  it.

      mix snex.doctor

  Exits with status 1 if something has to be done.
  """

  use Mix.Task

  alias Snex.Interpreter
  alias Snex.Project

  @requirements ["compile"]

  @impl Mix.Task
  def run(_args) do
    results = toolchain() ++ native() ++ Enum.flat_map(projects(), &project/1)
    Enum.each(results, &show/1)
    if Enum.any?(results, &match?({_what, {:error, _}}, &1)), do: exit({:shutdown, 1})
  end

  defp show({what, {:ok, detail}}), do: line(:green, "good", what, detail)
  defp show({what, {:skip, detail}}), do: line(:yellow, "note", what, detail)
  defp show({what, {:error, detail}}), do: line(:red, "BAD ", what, detail)

  defp line(colour, verdict, what, detail),
    do: Mix.shell().info([colour, verdict, :reset, "  ", String.pad_trailing(what, 24), " ", detail])

  defp toolchain do
    [
      {"Elixir", {:ok, "#{System.version()} on OTP #{System.otp_release()}"}},
      {"cargo", version("cargo", "needed to build Snex itself; install Rust from https://rustup.rs")},
      {"uv", with(:ok <- Project.Uv.check("uv"), do: version("uv", ""))}
    ]
  end

  defp version(program, advice) do
    case System.find_executable(program) do
      nil ->
        {:skip, "not on PATH: #{advice}"}

      path ->
        {output, 0} = System.cmd(path, ["--version"])
        {:ok, String.trim(output)}
    end
  end

  # What was built is tried: a Python of the machine is started, and asked.
  defp native do
    warden = Application.app_dir(:snex, "priv/native/snex_warden")

    [
      {"warden",
       if(File.exists?(warden),
         do: {:ok, warden},
         else: {:error, "#{warden} is missing: mix deps.compile snex --force"}
       )},
      {"native code", native_code()},
      {"Python on PATH", ask([])}
    ]
  end

  defp native_code do
    case Code.ensure_loaded(Snex.Native) do
      {:module, _} -> {:ok, Application.app_dir(:snex, "priv/native/snex_nif.so")}
      {:error, reason} -> {:error, "does not load (#{inspect(reason)}): mix deps.compile snex --force"}
    end
  end

  defp projects, do: Project.Module.in_project()

  defp project(project) do
    stale =
      if Project.stale?(project),
        do: {:error, "has to be made again: mix compile"},
        else: {:ok, Project.venv(project)}

    answer = if elem(stale, 0) == :ok, do: [{"  its Python", ask(python: Project.python!(project))}], else: []
    [{project.name, stale} | answer]
  end

  # Starts an interpreter, not linked to the task.
  defp ask(opts) do
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)

    case DynamicSupervisor.start_child(supervisor, %{
           id: Interpreter,
           start: {Interpreter, :start_link, [opts]},
           restart: :temporary
         }) do
      {:ok, interpreter} ->
        info = Interpreter.info(interpreter)
        Interpreter.stop(interpreter)
        {:ok, "#{info.implementation} #{info.python}, encoder #{info.encoder}, #{info.executable}"}

      {:error, error} ->
        {:error, Exception.message(error)}
    end
  end
end
