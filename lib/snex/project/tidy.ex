defmodule Snex.Project.Tidy do
  # Removes the projects of modules that are gone.
  #
  # A project is kept while its module is compiled, in any application of the build, or is being compiled
  # (`Snex.Project.Hold`). Modules in scripts, tests and notebooks are never compiled to a file. Therefore each project notes the
  # source that it was made for, and if Mix does not compile that source, the project is kept while the source exists.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.{Files, Hold, Lock}

  @doc """
  Begins to compile the module of a project: from here on its environment is kept, until `run/0` after the compilation.
  """
  @spec hold(Project.t()) :: :ok
  def hold(project) do
    if project.root == Project.build_root() do
      Hold.acquire(project.root, project.name)

      Mix.Task.Compiler.after_compiler(:elixir, fn {status, _} = result ->
        # All modules of this compilation are on disk now. The hook runs for each of them: the first does the work.
        if status != :error and Hold.release(project.root), do: run()
        result
      end)
    end

    :ok
  end

  @doc """
  Notes the file that the project's module is in.
  """
  @spec note(Project.t(), Path.t()) :: :ok
  def note(project, file) do
    note = note_path(Project.dir(project))
    if File.read(note) == {:ok, file}, do: :ok, else: File.write!(note, file)
  end

  @doc """
  Removes what belongs to no module any more from the build folder of the current Mix project.
  """
  @spec run() :: :ok
  def run do
    projects = Path.join(Project.build_root(), "projects")
    noted = for name <- Files.names(projects), File.exists?(note_path(Path.join(projects, name))), do: name
    known = if noted == [], do: [], else: Enum.map(Project.Module.in_build(), & &1.name)

    for name <- noted -- known, folder = Path.join(projects, name), gone?(folder) do
      Lock.with_lock(folder <> ".lock", "the Python environment in #{folder}", fn ->
        # Look again: a VM that has begun to compile it meanwhile took its hold before it waits for this lock.
        if gone?(folder), do: Files.remove!(folder)
      end)
    end

    :ok
  end

  defp gone?(folder) do
    with false <- MapSet.member?(Hold.held_projects(Project.build_root()), Path.basename(folder)),
         {:ok, source} <- File.read(note_path(folder)) do
      # What was typed into a shell has no file, and may be in use there.
      Path.type(source) == :absolute and (Path.extname(source) == ".ex" or not File.exists?(source))
    else
      _ -> false
    end
  end

  defp note_path(folder), do: Path.join(folder, "source")
end
