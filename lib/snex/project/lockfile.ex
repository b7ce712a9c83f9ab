defmodule Snex.Project.Lockfile do
  # uv.lock, the versions that uv chose, and who may write it.
  #
  # The lock of a project folder is read and never written. A member of a workspace has it at the workspace's root.
  #
  # For an inline project, uv works on a copy beside the environment. If `lock:` names a file in the source tree, that file is
  # copied there before uv runs, and copied back if uv has changed it. Only the file in the source tree counts: without it, uv
  # chooses all versions anew.
  #
  # A lock that does not fit is an error with `locked: true`, and where nobody would commit the change: in CI, unless
  # `SNEX_LOCKED` says otherwise. Elsewhere, the lock of a project folder is the start of an updated one in the build folder.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.{Home, Progress}

  @doc """
  What is in the lock that `lock:` names; part of what the environment is made from.
  """
  @spec content(Project.t()) :: nil | binary()
  def content(%{lock: nil}), do: nil
  def content(%{lock: lock}), do: read(lock)

  @doc """
  Copies the lock that `lock:` names to `folder`, where uv works on the copy.
  """
  @spec copy_to(Project.t(), Path.t()) :: :ok
  def copy_to(%{lock: nil}, _folder), do: :ok

  def copy_to(project, folder) do
    case content(project) do
      nil -> File.rm_rf!(copy(folder))
      content -> File.write!(copy(folder), Home.carry_lock(content, Home.folder(project), folder))
    end

    :ok
  end

  @doc """
  What `uv lock` is told: whether it may change the lock.
  """
  @spec args(Project.t()) :: [String.t()]
  def args(project) do
    if own?(project) or (project.lock != nil and frozen?(project)), do: ["--locked"], else: []
  end

  @doc """
  Copies the lock back from `folder` if uv has changed it. Returns its content.
  """
  @spec copy_back(Project.t(), Path.t()) :: nil | binary()
  def copy_back(%{lock: nil}, _folder), do: nil

  def copy_back(project, folder) do
    copy = read(copy(folder))
    locked = copy && Home.carry_lock(copy, folder, Home.folder(project))

    if locked not in [nil, content(project)] do
      File.mkdir_p!(Path.dirname(project.lock))
      unfinished = "#{project.lock}.#{System.pid()}.#{System.unique_integer([:positive])}"
      File.write!(unfinished, locked)
      File.rename!(unfinished, project.lock)
    end

    locked
  end

  @doc """
  Whether uv has refused the lock of a project folder, and may make another one from it in the build folder.
  """
  @spec seeds?(Project.t(), {:error, String.t()}) :: boolean()
  def seeds?(project, error), do: own?(project) and refused?(project, error) and not frozen?(project)

  @doc """
  Says that a project folder's lock is not the one that counts.
  """
  @spec warn(Project.t()) :: :ok
  def warn(project) do
    text =
      "the uv.lock in #{Home.folder(project)} is out of date. The environment is made from an updated copy of it; " <>
        "run `uv lock` there so that everybody gets the same versions"

    Progress.puts(IO.ANSI.format(["[#{project.name}] ", :yellow, "warning: ", :reset, text]))
  end

  @doc """
  Whether the environment was made from such a copy where only the project's own lock may be used now.
  """
  @spec forbidden?(Project.t(), Path.t()) :: boolean()
  def forbidden?(project, folder) do
    if own?(project) and frozen?(project) do
      home = Home.folder(project)
      read(copy(folder)) != home |> copy() |> read() |> Home.carry_lock(home, folder)
    else
      false
    end
  end

  @doc """
  Adds to uv's words what to do, when it refused the lock.
  """
  @spec explain({:error, String.t()}, Project.t()) :: {:error, String.t()}
  def explain({:error, message} = error, project) do
    if refused?(project, error),
      do: {:error, advice(project) <> "\n\n" <> message},
      else: error
  end

  defp refused?(project, {:error, message}), do: args(project) == ["--locked"] and message =~ "lockfile"

  defp advice(%{lock: nil} = project) do
    "the lock file does not match the pyproject.toml beside it, and #{frozen_by(project)}. To renew it, run `uv lock` in " <>
      Home.folder(project)
  end

  defp advice(%{lock: lock} = project) do
    wrong = if File.exists?(lock), do: "does not match the project's text", else: "does not exist"

    "the lock file #{lock} #{wrong}, and is not written because #{frozen_by(project)}. To renew it, compile with SNEX_LOCKED=false, " <>
      "and commit the file"
  end

  @doc """
  Whether the project is a folder that has a lock.
  """
  @spec own?(Project.t()) :: boolean()
  def own?(%{source: {:toml, _}}), do: false
  def own?(project), do: File.exists?(copy(Home.folder(project)))

  defp frozen?(project), do: frozen_by(project) != nil

  # SNEX_LOCKED goes first: a job in CI may be there to renew the lock.
  defp frozen_by(project) do
    cond do
      (value = System.get_env("SNEX_LOCKED", "")) != "" -> if on?(value), do: "SNEX_LOCKED=#{value} is set"
      project.locked -> "`locked: true` is set"
      on?(value = System.get_env("CI", "")) -> "CI=#{value} is set"
      true -> nil
    end
  end

  defp on?(value), do: value not in ["", "false", "0"]

  defp copy(folder), do: Path.join(folder, "uv.lock")

  # A lock that exists but cannot be read is an error.
  defp read(path) do
    case File.read(path) do
      {:ok, content} -> content
      {:error, :enoent} -> nil
      {:error, reason} -> raise File.Error, path: path, reason: reason, action: "read the lock"
    end
  end
end
