defmodule Snex.Project.Stamp do
  # What an environment was made from. Noted when it is complete, so that without the note, or with another one, it is made anew.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.Lockfile

  # Part of every stamp: a change of how environments are laid out makes all of them anew.
  @layout 2

  # What of a project folder tells uv what to install. A readme or the project's own code does not.
  @files ~w(pyproject.toml uv.lock uv.toml .python-version)

  @doc """
  The names of the files of a project folder that count.
  """
  @spec files() :: [String.t()]
  def files, do: @files

  @doc """
  The files that the module has to be compiled again for; some may not exist (yet).
  """
  @spec resources(Project.t()) :: [Path.t()]
  def resources(%{source: {:toml, _}, lock: lock}), do: List.wrap(lock)
  def resources(%{source: {:path, path}}), do: Enum.map(@files, &Path.join(path, &1))

  @doc """
  What these files have in them, or the text of an inline project.
  """
  @spec content(Project.t()) :: term()
  def content(%{source: {:toml, toml}}), do: toml
  def content(%{source: {:path, path}}), do: for(file <- @files, do: File.read(Path.join(path, file)))

  @doc """
  The texts in which the project may have settings for uv.
  """
  @spec settings(Project.t()) :: [String.t()]
  def settings(%{source: {:toml, toml}}), do: [toml]

  def settings(%{source: {:path, path}}) do
    for file <- ["pyproject.toml", "uv.toml"], {:ok, text} <- [File.read(Path.join(path, file))], do: text
  end

  @doc """
  Whether the environment was made from what there is now.
  """
  @spec current?(Project.t()) :: boolean()
  def current?(project),
    do: File.read(path(project)) == {:ok, digest(project, content(project), Lockfile.content(project))}

  @doc """
  Notes that the environment was made from this content and lock.
  """
  @spec write(Project.t(), term(), nil | binary()) :: :ok
  def write(project, content, lock), do: File.write!(path(project), digest(project, content, lock))

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
    {@layout, content, lock, project.python_preference, project.groups, project.extras}
    |> :erlang.term_to_binary()
    |> :erlang.md5()
    |> Base.encode16(case: :lower)
  end

  defp path(project), do: Path.join(Project.dir(project), "stamp")
end
