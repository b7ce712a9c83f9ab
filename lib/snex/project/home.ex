defmodule Snex.Project.Home do
  # The folder that the relative paths in a project's files start from (sources, members of a workspace, indexes that are folders),
  # and these files as they are when uv reads them elsewhere.
  #
  # For an inline project, that is the folder of its Mix project. A project folder that is a member of a uv workspace has the
  # settings and the lock of the workspace's root: home is that root.
  #
  # uv makes paths absolute by the folder that it works in, without links: so does this module.
  @moduledoc false

  alias Snex.{Native, Project}
  alias Snex.Project.Venv

  # The parts of a project folder that tell uv what to install. A readme or the project's own code is not among them.
  @files ~w(pyproject.toml uv.lock uv.toml .python-version)

  @doc """
  The folder.
  """
  @spec folder(Project.t()) :: Path.t()
  def folder(%{source: {:toml, _}, base: base}), do: base
  def folder(%{source: {:path, path}}), do: workspace(path) || path

  @doc """
  Whether the project is a member of a workspace with another root.
  """
  @spec member?(Project.t()) :: boolean()
  def member?(%{source: {:toml, _}}), do: false
  def member?(%{source: {:path, path}}), do: workspace(path) != nil

  # As in uv, the next workspace upwards is the only one in question.
  defp workspace(path) do
    path = Venv.real_path(path)

    with nil <- workspace_table(path),
         above = path |> Stream.iterate(&Path.dirname/1) |> Stream.drop(1) |> Enum.take_while(&(&1 != "/")),
         {root, toml} <- Enum.find_value(above, &workspace_table/1),
         way = Path.relative_to(path, root),
         true <- String.valid?(way) and Native.project_has_member(toml, way) do
      root
    else
      _ -> nil
    end
  end

  defp workspace_table(folder) do
    with {:ok, toml} <- File.read(Path.join(folder, "pyproject.toml")),
         %{workspace: {_, _}} <- Native.project_read(toml),
         do: {folder, toml},
         else: (_ -> nil)
  end

  @doc """
  The places of the files by which uv knows the project, by their names. Some may not exist. None for an inline project.
  """
  @spec files(Project.t()) :: [{name :: String.t(), Path.t()}]
  def files(%{source: {:toml, _}}), do: []

  def files(%{source: {:path, path}} = project) do
    home = folder(project)
    own = Path.join(path, ".python-version")

    for name <- @files,
        do: {name, if(name == Path.basename(own) and File.exists?(own), do: own, else: Path.join(home, name))}
  end

  @doc """
  Whether a text has relative paths in it.
  """
  @spec relative?(binary()) :: boolean()
  def relative?(toml), do: String.valid?(toml) and Native.project_rebase(toml, "..") != toml

  @doc """
  The text of a file as uv reads it in the folder `to`.
  """
  @spec carry(Project.t(), name :: String.t(), binary(), to :: Path.t()) ::
          {:ok, binary()} | {:error, String.t()}
  def carry(project, name, text, to) do
    cond do
      name == "uv.lock" -> {:ok, carry_lock(text, folder(project), to)}
      name in ["pyproject.toml", "uv.toml"] and relative?(text) -> rebase(project, name, text, to)
      true -> {:ok, text}
    end
  end

  defp rebase(project, name, text, to) do
    way = way(project, to)

    if String.valid?(way),
      do: {:ok, Native.project_rebase(text, way)},
      else: {:error, "#{name} has paths relative to #{folder(project)}, whose name is not valid UTF-8"}
  end

  @doc """
  The text of a pyproject.toml that uv has changed in the folder `from`, as it is at home.
  """
  @spec bring_back(Project.t(), String.t(), from :: Path.t()) :: String.t()
  def bring_back(project, toml, from) do
    way = way(project, from)
    if String.valid?(way), do: Native.project_unbase(toml, way), else: toml
  end

  defp way(project, folder),
    do: Path.relative_to(Venv.real_path(folder(project)), Venv.real_path(folder), force: true)

  @doc """
  The text of a lock in the folder `from` as uv reads it in the folder `to`.
  """
  @spec carry_lock(binary(), from :: Path.t(), to :: Path.t()) :: binary()
  def carry_lock(lock, from, to) do
    arguments = [lock, Venv.real_path(from), Venv.real_path(to)]
    if Enum.all?(arguments, &String.valid?/1), do: apply(Native, :lock_rebase, arguments), else: lock
  end

  @doc """
  The packages that a lock in this folder takes from folders of this machine.
  """
  @spec locals(Path.t()) :: [%{name: String.t(), folder: Path.t()}]
  def locals(folder) do
    with {:ok, lock} <- File.read(Path.join(folder, "uv.lock")), true <- String.valid?(lock) do
      real = Venv.real_path(folder)
      for {name, path} <- Native.lock_locals(lock), do: %{name: name, folder: Path.expand(path, real)}
    else
      _ -> []
    end
  end
end
