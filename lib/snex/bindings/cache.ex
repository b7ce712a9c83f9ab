defmodule Snex.Bindings.Cache do
  @moduledoc false
  # What was generated, beside the projects in the build folder: one file for each module. It counts as long as nothing has changed that
  # it was made from: the project and its lock, the options, this generator, and files of Python in folders of the user's.

  alias Snex.Bindings.Introspection
  alias Snex.Bindings.Source
  alias Snex.Project
  alias Snex.Project.Files
  alias Snex.Project.Lockfile
  alias Snex.Project.Stamp
  alias Snex.Project.Venv

  @generator [
    Introspection,
    Snex.Bindings.Documentation,
    Snex.Bindings.Names,
    Snex.Bindings.Plan,
    Snex.Bindings.Tools,
    Snex.Bindings.Types,
    Snex.Bindings.Variant,
    Source
  ]

  @doc """
  What was stored, if it still counts.
  """
  @spec fetch(Project.t(), module(), map()) :: {:ok, [Source.part()], [Path.t()]} | :error
  def fetch(project, module, options) do
    with {:ok, content} <- File.read(path(project, module)),
         {key, files, bodies} <- decode(content),
         true <- key == key(project, options),
         true <- files == digests(Map.keys(files)) do
      {:ok, bodies, Map.keys(files)}
    else
      _ -> :error
    end
  end

  @doc """
  Stores what was generated.
  """
  @spec store(Project.t(), module(), map(), [Source.part()], [Path.t()]) :: :ok
  def store(project, module, options, bodies, files) do
    path = path(project, module)
    File.mkdir_p!(Path.dirname(path))
    unfinished = "#{path}.#{System.pid()}"
    File.write!(unfinished, :erlang.term_to_binary({key(project, options), digests(files), bodies}))
    File.rename!(unfinished, path)
  end

  # Written by another version, or damaged: then it is made anew.
  defp decode(content) do
    :erlang.binary_to_term(content)
  rescue
    ArgumentError -> :error
  end

  defp path(project, module), do: Path.join([project.root, "bindings", inspect(module)])

  defp key(project, options) do
    folder = Path.dirname(Introspection.script())

    scripts =
      for name <- Files.names(folder), Path.extname(name) == ".py", do: File.read!(Path.join(folder, name))

    generator = for module <- @generator, do: module.module_info(:md5)

    # The lock of a text in a module is nowhere else, unless its option says so.
    lock = File.read(Path.join(Project.dir(project), "uv.lock"))

    {Stamp.digest(project, Stamp.content(project), Lockfile.content(project)), lock,
     Venv.base_program(Project.venv(project)), options, generator, :erlang.md5(scripts)}
  end

  defp digests(files), do: Map.new(files, fn file -> {file, digest(File.read(file))} end)

  defp digest({:ok, content}), do: :erlang.md5(content)
  defp digest(error), do: error
end
