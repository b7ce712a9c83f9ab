defmodule Snex.Project.Module do
  # From modules that `use Snex.Interpreter` to their projects. Compiled files are read, no module is loaded.
  @moduledoc false

  alias Snex.Os
  alias Snex.Project
  alias Snex.Project.Files

  @doc """
  The projects of all applications in the build folder of the current Mix project, with the places that they have now.
  """
  @spec in_build() :: [Project.t()]
  def in_build, do: in_applications(Files.names(lib()))

  @doc """
  As `in_build/0`, of the current Mix project and its dependencies: not of applications that are only left in the folder.
  """
  @spec in_project() :: [Project.t()]
  def in_project, do: in_applications(Enum.map(Map.keys(folders()), &to_string/1))

  defp in_applications(names) do
    names
    |> Task.async_stream(&{&1, in_ebin(Path.join([lib(), &1, "ebin"]))}, timeout: :infinity)
    |> Enum.flat_map(fn {:ok, {name, projects}} -> Enum.map(projects, &moved(&1, name)) end)
  end

  @doc """
  The project of a module of the application `app`, with the places that it has now: the build folder and the sources may
  have been moved since the module was compiled.
  """
  @spec moved(Project.t(), atom() | String.t()) :: Project.t()
  def moved(project, app) do
    base =
      Enum.find_value(folders(), fn {name, folder} -> if to_string(name) == to_string(app), do: folder end)

    Project.move(project, Project.build_root(), base || project.base)
  end

  defp lib, do: Path.join(Mix.Project.build_path(), "lib")

  # Where the sources of each application are.
  defp folders, do: Map.put(Mix.Project.deps_paths(), Mix.Project.config()[:app], File.cwd!())

  @doc """
  The projects of the modules in a folder of compiled modules, with the places that they had when they were compiled.
  """
  @spec in_ebin(Path.t()) :: [Project.t()]
  def in_ebin(ebin) do
    for name <- Files.names(ebin),
        Path.extname(name) == ".beam",
        project <- List.wrap(in_beam(Path.join(ebin, name))),
        do: project
  end

  @doc """
  The project of the module that a user names on a command line, such as `MyApp.Numpy`, as `moved/2`.
  """
  @spec named(String.t()) :: {:ok, Project.t()} | {:error, String.t()}
  def named(name) do
    module = Module.concat([name])

    with [_ | _] = beam <- :code.which(module),
         beam = Os.bytes(beam),
         %Project{} = project <- in_beam(beam) do
      # <build folder>/lib/<application>/ebin/<Module>.beam
      {:ok, moved(project, beam |> Path.dirname() |> Path.dirname() |> Path.basename())}
    else
      nil -> {:error, "#{name} does not `use Snex.Interpreter` with a project"}
      _not_found -> {:error, "there is no module #{name}"}
    end
  end

  @doc """
  The project of the module in a compiled file, if it is there and has one.
  """
  @spec in_beam(Path.t()) :: Project.t() | nil
  def in_beam(beam) do
    with {:ok, {_module, [attributes: attributes]}} <- :beam_lib.chunks(Os.characters(beam), [:attributes]),
         [%Project{} = project] <- attributes[:snex_project],
         # Compiled with another version of Snex, it may lack what this one knows.
         do: struct(Project, Map.from_struct(project)),
         else: (_ -> nil)
  end
end
