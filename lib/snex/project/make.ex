defmodule Snex.Project.Make do
  # Makes the virtual environments of a project. The caller has to hold the project's lock.
  @moduledoc false

  alias Snex.{Native, Project}
  alias Snex.Project.{Advice, Check, Files, Home, Local, Lockfile, Preference, Stamp, Uv, Venv}

  @doc """
  Makes the environment, and notes at the end what it was made from.
  """
  @spec environment(Project.t()) :: :ok | {:error, String.t()}
  def environment(project) do
    venv = Project.venv(project)

    with :ok <- Uv.check(project.uv) do
      # Before uv reads it: what is changed from now on makes the environment stale.
      content = Stamp.content(project)
      folder = workplace(project)

      # First of all the Python, because `uv lock` needs one as well.
      with :ok <- seed(project),
           :ok <- Files.remove!(venv),
           :ok <- Preference.make_venv(project, &uv(project, venv_args(venv), folder, &1)),
           {:ok, folder} <- lock(project, folder),
           lock = Lockfile.copy_back(project, Project.dir(project)),
           :ok <- sync(project, venv, folder, []),
           :ok <- install_project(project, venv, ["--editable"]) do
        Venv.make_movable(venv, project.root)
        Stamp.write(project, content, lock)
      end
    end
  end

  @doc """
  The environment as a release takes it, of a project that is installed: one without editable packages, which would be read
  from the source tree. Local packages are built from what is in their folders now.

  That is the project's own environment, if it has no local packages. Otherwise another one is made beside it.
  """
  @spec for_release(Project.t()) :: {:ok, venv :: Path.t()} | {:error, String.t()}
  def for_release(project) do
    venv = Project.venv(project)

    case Local.packages(venv) do
      [] -> {:ok, venv}
      packages -> without_editable(project, venv, packages)
    end
  end

  defp without_editable(project, venv, packages) do
    packed = Path.join(Project.dir(project), ".venv-release")
    Files.remove!(packed)
    python = ["--python", Venv.base_program(venv)]

    with :ok <- Uv.check(project.uv),
         :ok <- uv(project, venv_args(packed) ++ python, workplace(project)),
         {:ok, folder} <- lock(project, workplace(project)),
         :ok <- sync(project, packed, folder, ["--no-editable"]),
         :ok <- install_project(project, packed, []),
         :ok <- complete(packages, Local.packages(packed)) do
      Venv.make_movable(packed, project.root)
      {:ok, packed}
    end
  end

  # What was installed into the environment by hand is not known to uv, and would silently be missing.
  defp complete(packages, packed) do
    names = for %{editable?: false, name: name} <- packed, do: name

    case Enum.reject(packages, &(&1.name in names)) do
      [] ->
        :ok

      [%{name: name, folder: folder} | _] ->
        {:error,
         "the package #{name} is read from #{folder}, which a release cannot contain, and uv does not install it for the " <>
           "project. Add it to the project's dependencies, with its folder under [tool.uv.sources]"}
    end
  end

  defp venv_args(venv), do: ["venv", "--relocatable", venv]

  defp sync(project, venv, folder, args) do
    # A group that nobody has named is for those who work on the project, `dev` above all.
    wanted =
      ["--no-install-project", "--no-default-groups"] ++
        Enum.flat_map(project.groups, &["--group", &1]) ++ Enum.flat_map(project.extras, &["--extra", &1])

    # What uv has in its cache may have been built before the code in these folders was changed.
    refresh = Enum.flat_map(Home.locals(folder), &["--refresh-package", &1.name])

    args = ["sync", "--locked"] ++ package(project, folder) ++ wanted ++ refresh ++ args
    uv(project, args, folder, %{"UV_PROJECT_ENVIRONMENT" => venv})
  end

  # The project's dependencies are there. `uv sync` would build the package in the folder of the lock, which may have nothing but
  # a copy of the pyproject.toml in it.
  defp install_project(%{install_project: true, source: {:path, path}} = project, venv, args) do
    args = ["--no-deps", "--refresh-package", name(project) | args] ++ ["."]
    uv(project, ["pip", "install", "--python", Venv.python(venv) | args], path)
  end

  defp install_project(_project, _venv, _args), do: :ok

  defp name(project), do: Native.project_read(Check.text(project.source)).name

  # Outside the folder of a workspace member, uv has to be told which member is meant.
  defp package(%{source: {:path, path}} = project, folder) do
    if folder != path and Home.member?(project),
      do: ["--package", name(project)],
      else: []
  end

  defp package(_project, _folder), do: []

  # Returns the folder of the lock that holds from now on.
  defp lock(project, folder) do
    dir = Project.dir(project)
    result = uv(project, ["lock" | Lockfile.args(project)], folder)

    cond do
      result == :ok ->
        {:ok, folder}

      Lockfile.seeds?(project, result) ->
        with :ok <- uv(project, ["lock"], dir) do
          Lockfile.warn(project)
          {:ok, dir}
        end

      true ->
        {:error, message} = Lockfile.explain(result, project)
        check = &uv(project, ["lock", "--offline", "--dry-run"], &1)
        {:error, Advice.on_dependencies(message, Check.text(project.source), Path.join(dir, "check"), check)}
    end
  end

  # A lock that uv wrote for an inline project stays when the text changes: versions move only as far as they must.
  defp seed(project) do
    dir = Project.dir(project)
    File.mkdir_p!(dir)
    Stamp.remove(project)

    texts =
      case project.source do
        {:toml, toml} ->
          Lockfile.copy_to(project, dir)
          [{"pyproject.toml", {:ok, toml}}]

        {:path, _path} ->
          for {name, file} <- Home.files(project), do: {name, File.read(file)}
      end

    Enum.reduce_while(texts, :ok, fn {name, text}, :ok ->
      File.rm_rf!(Path.join(dir, name))

      with {:ok, text} <- text,
           {:ok, text} <- Home.carry(project, name, text, dir) do
        File.write!(Path.join(dir, name), text)
        {:cont, :ok}
      else
        {:error, message} when is_binary(message) -> {:halt, {:error, message}}
        {:error, _not_there} -> {:cont, :ok}
      end
    end)
  end

  # A folder with a lock is only read by uv. Without one, uv would write a lock into the user's source tree: it works on the
  # copy instead.
  defp workplace(%{source: {:path, path}} = project) do
    if Lockfile.own?(project), do: path, else: Project.dir(project)
  end

  defp workplace(project), do: Project.dir(project)

  @doc """
  Runs uv on the project, in a folder of its files, with the environment and the Pythons that are the project's.
  """
  @spec uv(Project.t(), [String.t()], Path.t(), map()) :: :ok | {:error, String.t()}
  def uv(project, args, folder, env \\ %{}) do
    own = %{
      "UV_PROJECT_ENVIRONMENT" => Project.venv(project),
      "UV_PYTHON_INSTALL_DIR" => Path.join(project.root, "python"),
      # Only into this folder: no links to it in the user's folder of programs.
      "UV_PYTHON_INSTALL_BIN" => "0",
      # Which project this is, and what becomes of its lock, is settled here: not by what happens to be active, or set for
      # other work. Everything else that uv reads from its variables (indexes, proxies, certificates, its cache) holds.
      "VIRTUAL_ENV" => nil,
      "UV_PROJECT" => nil,
      "UV_WORKING_DIR" => nil,
      "UV_WORKING_DIRECTORY" => nil,
      "UV_LOCKED" => nil,
      "UV_FROZEN" => nil
    }

    # Links into uv's cache would not survive in a release.
    own = if System.get_env("UV_LINK_MODE") == "symlink", do: Map.put(own, "UV_LINK_MODE", "copy"), else: own
    env = own |> Map.merge(Preference.env(project)) |> Map.merge(env)
    # Several modules may be compiled at once: each line says whose it is.
    Uv.run(project.uv, args, folder, env, "[#{project.name}] ")
  end
end
