defmodule Snex.Project.Stamp do
  # A note of what an environment was made from, written when the environment is complete. Without the note, or with a different one,
  # the environment is made anew.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.{Home, Lockfile, Venv}

  # Part of every stamp: a change of how environments are laid out makes all of them anew.
  @layout 2

  # The files of a package in a folder that tell uv its dependencies. Its code is not among them.
  @of_package ~w(pyproject.toml setup.py setup.cfg)

  @doc """
  The files that the module has to be compiled again for; some may not exist (yet).
  """
  @spec resources(Project.t()) :: [Path.t()]
  def resources(project) do
    files = for {_name, file} <- Home.files(project), do: file
    own = with {:path, path} <- project.source, do: [Path.join(path, "pyproject.toml")], else: (_ -> [])
    Enum.uniq(List.wrap(project.lock) ++ own ++ files ++ of_packages(project))
  end

  defp of_packages(project) do
    for %{folder: folder} <- Home.locals(Project.dir(project)),
        name <- @of_package,
        do: Path.join(folder, name)
  end

  @doc """
  What the files of the project have in them, or the text of an inline project, and what the relative paths in them start from.
  """
  @spec content(Project.t()) :: term()
  def content(%{source: {:toml, toml}} = project), do: {toml, place(project, [toml])}

  def content(%{source: {:path, path}} = project) do
    files = for {_name, file} <- Home.files(project), do: File.read(file)
    {File.read(Path.join(path, "pyproject.toml")), files, place(project, settings(project))}
  end

  defp place(project, texts) do
    if Enum.any?(texts, &Home.relative?/1), do: Venv.real_path(Home.folder(project))
  end

  @doc """
  The texts in which the project may have settings for uv.
  """
  @spec settings(Project.t()) :: [String.t()]
  def settings(%{source: {:toml, toml}}), do: [toml]

  def settings(project) do
    for {name, file} <- Home.files(project),
        name in ["pyproject.toml", "uv.toml"],
        {:ok, text} <- [File.read(file)],
        do: text
  end

  @doc """
  Whether the environment was made from what there is now.
  """
  @spec current?(Project.t()) :: boolean()
  def current?(project),
    do: File.read(path(project)) == {:ok, full(project, content(project), Lockfile.content(project))}

  @doc """
  Notes that the environment was made from this content and lock, and from the packages in folders that there are now.
  """
  @spec write(Project.t(), term(), nil | binary()) :: :ok
  def write(project, content, lock), do: File.write!(path(project), full(project, content, lock))

  # Which packages in folders there are is known from the lock that the environment was made from.
  defp full(project, content, lock) do
    of_packages = for file <- of_packages(project), do: {Path.basename(file), File.read(file)}
    digest(project, {content, of_packages}, lock)
  end

  @doc """
  Forgets what the environment was made from.
  """
  @spec remove(Project.t()) :: :ok
  def remove(project) do
    File.rm_rf!(path(project))
    :ok
  end

  @doc """
  A text for all of it. Without the machine's state: a new release of a package does not make the environment stale, a changed
  text does.
  """
  @spec digest(Project.t(), term(), term()) :: String.t()
  def digest(project, content, lock) do
    {@layout, content, lock, project.python_preference, project.groups, project.extras,
     project.install_project}
    |> :erlang.term_to_binary()
    |> :erlang.md5()
    |> Base.encode16(case: :lower)
  end

  defp path(project), do: Path.join(Project.dir(project), "stamp")
end
