defmodule Snex.Project do
  # The uv project of one interpreter module: its pyproject.toml, uv.lock and virtual environment.
  #
  # All of it lives below one root, `_build/$MIX_ENV/snex`:
  #
  #     python/                  Pythons that uv downloaded, for all modules of the application
  #     projects/<Module>/       pyproject.toml, uv.lock, .venv
  #     projects/<Module>/stamp  what the environment was made from; written last, so that without it,
  #                              or with another one, the environment is made anew
  #     projects/<Module>/source the file that the module is compiled from
  #     compiling/               see `Snex.Project.Hold`
  #     projects/<Module>.lock   held while one of several `mix` works on that folder
  #
  # The root can be moved, and travels in a release: links inside of it are relative, scripts in the virtual environment
  # find their Python by their own place, and `python!/1` puts right what Python insists on having absolute.
  @moduledoc false

  alias Snex.Os
  alias Snex.Project.{Files, Lock, Lockfile, Make, Private, Stamp, Venv}

  @enforce_keys [
    :name,
    :module,
    :root,
    :base,
    :source,
    :lock,
    :locked,
    :uv,
    :python_preference,
    :groups,
    :extras,
    :install_project,
    :python_path
  ]
  defstruct @enforce_keys

  @type source :: {:toml, String.t()} | {:path, Path.t()}
  @type t :: %__MODULE__{
          name: String.t(),
          module: module(),
          root: Path.t(),
          base: Path.t(),
          source: source(),
          lock: nil | Path.t(),
          locked: boolean(),
          uv: String.t(),
          python_preference: nil | :managed | :system | :only_managed | :only_system,
          groups: [String.t()],
          extras: [String.t()],
          install_project: boolean(),
          python_path: term()
        }

  @doc """
  The project of `module`, from options that `Snex.Interpreter.Definition` has checked. Touches no file.
  """
  @spec new(module(), source(), keyword()) :: t()
  def new(module, source, opts \\ []) do
    project = %__MODULE__{
      name: name(module),
      module: module,
      root: nil,
      # Mix compiles each application, dependencies included, in its own folder.
      base: File.cwd!(),
      source: source,
      lock: opts[:lock] && Path.expand(opts[:lock]),
      locked: Keyword.get(opts, :locked, false),
      uv: Keyword.get(opts, :uv, "uv"),
      python_preference: opts[:python_preference],
      groups: Enum.map(opts[:groups] || [], &to_string/1),
      extras: Enum.map(Keyword.get(opts, :extras, []), &to_string/1),
      install_project: Keyword.get(opts, :install_project, false),
      python_path: opts |> Keyword.get(:python_path, []) |> List.wrap() |> Enum.map(&expand/1)
    }

    case opts[:root] do
      nil -> place(project)
      root -> %{project | root: root}
    end
  end

  # The name of a folder, which is part of paths that must have no colon in them.
  defp name(module) do
    name = inspect(module)

    if name =~ ~r/^[A-Z][\w.]*$/,
      do: name,
      else: "erlang-" <> URI.encode(Atom.to_string(module), &URI.char_unreserved?/1)
  end

  defp expand(path) when is_binary(path), do: Path.expand(path)
  defp expand(other), do: other

  @doc """
  The same project, whose root and whose application's sources are elsewhere now.
  """
  @spec move(t(), Path.t(), Path.t()) :: t()
  def move(project, root, base) do
    rebase = fn
      path when is_binary(path) and is_binary(project.base) ->
        path |> Path.relative_to(project.base) |> Path.expand(base)

      other ->
        other
    end

    source = with {:path, path} <- project.source, do: {:path, rebase.(path)}

    %{
      project
      | root: root,
        base: base,
        source: source,
        lock: rebase.(project.lock),
        python_path: Enum.map(List.wrap(project.python_path), rebase)
    }
  end

  @doc """
  A project that belongs to no module, made from a text at run time. It lives in the user's cache, and whoever asks for the
  same text and options gets the same one.
  """
  @spec at_run_time(String.t(), keyword()) :: t()
  def at_run_time(toml, opts) do
    root = Path.join(cache(), "run_time")
    name_by_content(%{new(nil, {:toml, toml}, Keyword.put(opts, :root, root)) | name: "python"})
  end

  # In a Mix project: beside the applications that Mix builds. A script has no folder of its own: those with the same
  # dependencies share one, or all share the user's cache. There the name says which content it is for.
  defp place(project) do
    cond do
      root = build_root() ->
        %{project | root: root}

      mix?() and Mix.install_project_dir() != nil ->
        root = Path.join([Mix.install_project_dir(), "_build", to_string(Mix.env()), "snex"])
        name_by_content(%{project | root: root})

      true ->
        name_by_content(%{project | root: cache()})
    end
  end

  # What lies there is run: nobody else is to write there, or to see what is used.
  defp cache, do: :filename.basedir(:user_cache, "snex")

  defp guard(project) do
    if project.root == cache() or Path.dirname(project.root) == cache() do
      Private.make!(cache())
      Private.make!(project.root)
    end
  end

  @doc """
  The root in the build folder of the current Mix project; nil without one.
  """
  @spec build_root() :: Path.t() | nil
  def build_root do
    if mix?() and Mix.Project.get() != nil, do: Path.join(Mix.Project.build_path(), "snex")
  end

  defp name_by_content(project) do
    # What is in the lock may change: it does not make another project.
    %{
      project
      | name:
          "#{project.name}-#{project |> Stamp.digest(Stamp.content(project), project.lock) |> binary_part(0, 12)}"
    }
  end

  # Mix is there when code is compiled, and may be absent when a compiled system runs.
  defp mix?, do: Code.ensure_loaded?(Mix.Project) and Process.whereis(Mix.State) != nil

  @doc """
  Whether `install/1` has something to do.
  """
  @spec stale?(t()) :: boolean()
  def stale?(project) do
    not Stamp.current?(project) or not Venv.usable?(venv(project)) or
      Lockfile.forbidden?(project, dir(project))
  end

  @doc """
  Makes the environment, unless it is there already. What uv says is shown as it comes, through the group leader.
  """
  @spec install(t()) :: :ok | {:error, String.t()}
  def install(project) do
    cond do
      # What makes the environment, or removes it, holds the lock.
      not stale?(project) and not File.exists?(lock_path(project)) ->
        :ok

      String.contains?(dir(project), ":") ->
        {:error,
         "its folder would be #{dir(project)}, and a path with a colon in it cannot be on PATH or PYTHONPATH"}

      true ->
        guard(project)

        with_lock(project, fn ->
          # Another VM may have finished the work while this one waited for the lock.
          if stale?(project), do: Make.environment(project), else: :ok
        end)
    end
  end

  @doc """
  Installs the project, and calls `fun` with the environment as a release takes it.
  """
  @spec with_release(t(), (venv :: Path.t() -> result)) :: {:ok, result} | {:error, String.t()}
        when result: var
  def with_release(project, fun) do
    with :ok <- install(project) do
      with_lock(project, fn ->
        with {:ok, venv} <- Make.for_release(project) do
          result = fun.(venv)
          # A copy of the project's own has served its purpose.
          if venv != venv(project), do: Files.remove!(venv)
          {:ok, result}
        end
      end)
    end
  end

  defp with_lock(project, fun),
    do: Lock.with_lock(lock_path(project), "the Python environment of #{project.name}", fun)

  defp lock_path(project), do: dir(project) <> ".lock"

  @doc """
  The path of the environment's Python on this machine, now.

  Looks beside the folder that the module was loaded from, which is in a release, or in a build folder that may have been moved
  since, then where the environment was made.
  """
  @spec python!(t()) :: Path.t()
  def python!(project) do
    loaded = loaded_root(project)
    venvs = for root <- Enum.uniq([loaded || project.root, project.root]), do: venv(%{project | root: root})

    case Enum.find(venvs, &Venv.usable?/1) do
      nil ->
        raise """
        the Python environment of #{project.name} is missing. It was looked for in:
        #{Enum.map_join(venvs, "\n", &"  #{&1}")}
        #{missing(loaded)}\
        """

      venv ->
        Venv.settle(venv)
        Venv.python(venv)
    end
  end

  # <build or release>/lib/<application>/ebin/<Module>.beam; a module that was never a file has no such place.
  defp loaded_root(project) do
    case :code.which(project.module) do
      [_ | _] = beam -> beam |> Os.bytes() |> Path.join("../../../../snex") |> Path.expand()
      _ -> nil
    end
  end

  defp missing(loaded) do
    if loaded != nil and File.exists?(Path.join(Path.dirname(loaded), "releases/start_erl.data")),
      do:
        "This is a release that was made without the step that adds Python to it. In mix.exs: " <>
          "releases: [my_app: [steps: [:assemble, &Snex.Release.after_assemble/1]]]",
      else:
        "`mix compile` makes it again. For a module in a dependency, mix.exs needs `compilers: Mix.compilers() ++ [:snex]`"
  end

  @doc """
  The folder of the project, below the root.
  """
  @spec dir(t()) :: Path.t()
  def dir(project), do: Path.join([project.root, "projects", project.name])

  @doc """
  The folder of the virtual environment.
  """
  @spec venv(t()) :: Path.t()
  def venv(project), do: Path.join(dir(project), ".venv")
end
