defmodule Snex.Project.Tidy do
  # Removes the projects of modules that are gone.
  #
  # A compiled module vouches for its project. Modules in scripts, tests and notebooks are never compiled to a file: each
  # project says what source it was made for, and a source that Mix does not compile vouches as long as it exists.
  #
  # This looks at what a compilation has left behind, so it may run only after one: before, a module whose project was
  # made just now is not there yet. Mix sees to it that only one at a time compiles into a build folder.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.Lock

  @doc """
  Notes the file that the project's module is in, and has `run/0` called when Mix has compiled all modules.
  """
  @spec expect(Project.t(), Path.t()) :: :ok
  def expect(project, file) do
    note = Path.join(Project.dir(project), "source")
    if File.read(note) != {:ok, file}, do: File.write!(note, file)

    if project.root == Project.build_root() do
      Mix.Task.Compiler.after_compiler(:elixir, fn {status, _} = result ->
        if status != :error, do: run()
        result
      end)
    end

    :ok
  end

  @doc """
  Removes what belongs to no module any more from the build folder of the current Mix project.
  """
  @spec run() :: :ok
  def run do
    root = Project.build_root()

    for note <- Path.wildcard(Path.join(root, "projects/*/source")),
        folder = Path.dirname(note),
        gone?(folder) do
      Lock.with_lock(folder <> ".lock", "the Python environment in #{folder}", fn -> File.rm_rf!(folder) end)
    end

    :ok
  end

  defp gone?(folder) do
    source = File.read!(Path.join(folder, "source"))
    compiled? = Enum.any?(beams(Path.basename(folder)), &(Project.Module.in_beam(&1) != nil))
    # What was typed into a shell has no file, and may be in use there.
    file? = Path.type(source) == :absolute
    file? and not compiled? and (Path.extname(source) == ".ex" or not File.exists?(source))
  end

  # Of all applications that are built here.
  defp beams(name) do
    # As `inspect/1` writes modules: without the prefix of Elixir's, with a colon for others.
    file = if String.starts_with?(name, ":"), do: String.trim_leading(name, ":"), else: "Elixir." <> name
    Path.wildcard(Path.join([Mix.Project.build_path(), "lib/*/ebin", file <> ".beam"]))
  end
end
