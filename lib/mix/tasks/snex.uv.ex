defmodule Mix.Tasks.Snex.Uv do
  @shortdoc "Runs uv on the project of an interpreter module"

  @moduledoc """
  Runs uv on the project of a module that uses `Snex.Interpreter`.

      mix snex.uv MyApp.Numpy -- add "pandas>=2"
      mix snex.uv MyApp.Numpy -- remove pandas
      mix snex.uv MyApp.Numpy -- tree
      mix snex.uv MyApp.Numpy -- lock --upgrade

  The arguments after `--` are passed to uv. For a module with `:project_path`, uv works in that folder. For a module
  with `:pyproject_toml`, it works on a copy. Its changes to the text are then made in the module's source file, or
  printed if the text is not found there as it is. The lock file named by the option `:lock` is also written. The next
  `mix compile` installs what has changed.
  """

  use Mix.Task

  alias Snex.Project
  alias Snex.Project.Home

  @requirements ["compile"]

  @impl Mix.Task
  def run([name, "--" | [_ | _] = args]) do
    with {:ok, project} <- Project.Module.named(name),
         :ok <- Project.Uv.check(project.uv),
         :ok <- edit(project, args) do
      :ok
    else
      {:error, message} -> Mix.raise(message)
    end
  end

  def run(_args), do: Mix.raise("usage: mix snex.uv Module -- ARGUMENTS")

  defp edit(%{source: {:path, path}} = project, args), do: uv(project, args, path)

  defp edit(%{source: {:toml, old}} = project, args) do
    folder = Path.join(System.tmp_dir!(), "snex-uv-#{System.pid()}-#{System.unique_integer([:positive])}")
    toml = Path.join(folder, "pyproject.toml")

    try do
      Project.Private.make!(folder)
      copy_lock(project, folder)

      with {:ok, text} <- Home.carry(project, "pyproject.toml", old, folder),
           :ok <- File.write(toml, text),
           # From the folder that paths among the arguments start from.
           :ok <- uv(project, ["--project", folder | args], project.base) do
        Project.Lockfile.copy_back(project, folder)
        new = Home.bring_back(project, File.read!(toml), folder)
        if new != old, do: write(project, old, new), else: :ok
      end
    after
      File.rm_rf!(folder)
    end
  end

  defp copy_lock(%{lock: nil} = project, folder) do
    with {:ok, lock} <- File.read(Path.join(Project.dir(project), "uv.lock")),
         do: File.write!(Path.join(folder, "uv.lock"), Home.carry_lock(lock, Project.dir(project), folder))
  end

  defp copy_lock(project, folder), do: Project.Lockfile.copy_to(project, folder)

  # The environment is the compiler's to make.
  defp uv(project, args, folder), do: Project.Make.uv(project, args, folder, %{"UV_NO_SYNC" => "1"})

  defp write(project, old, new) do
    source = to_string(project.module.module_info(:compile)[:source])

    with {:ok, text} <- File.read(source),
         {:ok, edited} <- Project.Heredoc.replace(text, old, new) do
      File.write!(source, edited)
      Mix.shell().info("#{Path.relative_to_cwd(source)} now has the changed text; `mix compile` installs it")
    else
      _ ->
        Mix.shell().info("""
        The text was not found in #{Path.relative_to_cwd(source)} as it is. Put this there:

        #{new}\
        """)
    end
  end
end
