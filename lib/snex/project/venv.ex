defmodule Snex.Project.Venv do
  # What makes a virtual environment movable together with the Python that it belongs to.
  #
  # Two things in it are absolute. The link `bin/python`: made relative when it stays below the common root. The line
  # `home` in pyvenv.cfg, the folder of the base Python: there is no relative form of it. Python 3.10 to 3.13 do without
  # the line, 3.14 does not find the packages then, and a wrong one lets each of them load another Python's standard
  # library. So it is written again by whoever starts Python and finds that the folder has been moved.
  @moduledoc false

  @doc """
  The environment's Python. A link: Python finds the environment by the path that it was started with.
  """
  @spec python(Path.t()) :: Path.t()
  def python(venv), do: Path.join([venv, "bin", "python"])

  @doc """
  Whether there is a Python at the end of the link: that of the system may have been upgraded away.
  """
  @spec usable?(Path.t()) :: boolean()
  def usable?(venv), do: File.regular?(python(venv)) and File.regular?(config(venv))

  @doc """
  Makes links below `root` that lead to other places below `root` relative.
  """
  @spec make_movable(Path.t(), Path.t()) :: :ok
  def make_movable(venv, root) do
    # Both are given to programs and compared with what these write down: the form without links counts.
    real_root = real_path(root)

    # Of a Python installation only the top has links to it by another name (the minor version); its inside is made
    # to be moved by those who build it.
    for dir <- [Path.join(venv, "bin"), Path.join(root, "python")],
        {:ok, names} <- [File.ls(dir)],
        name <- names,
        link = Path.join(dir, name),
        {:ok, "/" <> _ = target} <- [File.read_link(link)] do
      inside =
        Enum.find_value([root, real_root], fn root ->
          relative = Path.relative_to(target, root)
          if relative != target, do: relative
        end)

      if inside, do: relink(link, up_to_root(dir, root) <> inside)
    end

    :ok
  end

  # The way from `dir` to `root`: "../" for each folder between them.
  defp up_to_root(dir, root) do
    depth = dir |> Path.relative_to(root) |> Path.split() |> length()
    String.duplicate("../", depth)
  end

  # By a rename, so that there is a Python at each moment.
  defp relink(link, target) do
    File.rm_rf!(link <> ".new")
    File.ln_s!(target, link <> ".new")
    File.rename!(link <> ".new", link)
  end

  @doc """
  Puts `home` in pyvenv.cfg right if the folder has been moved since it was written.
  """
  @spec settle(Path.t()) :: :ok
  def settle(venv) do
    case File.read_link(python(venv)) do
      # A Python outside: where this environment lies makes no difference to it.
      {:ok, "/" <> _} ->
        :ok

      {:ok, target} ->
        write_home(venv, target |> Path.expand(Path.join(venv, "bin")) |> Path.dirname())

      {:error, _} ->
        :ok
    end
  end

  defp write_home(venv, home) do
    old = File.read!(config(venv))
    new = Regex.replace(~r/^home\s*=.*$/m, old, fn _ -> "home = #{home}" end, global: false)

    # Several interpreters may start at once: each puts a whole file with the same content in its place.
    if new != old do
      unfinished = "#{config(venv)}.#{System.pid()}.#{System.unique_integer([:positive])}"
      File.write!(unfinished, new)
      File.rename!(unfinished, config(venv))
    end

    :ok
  end

  defp config(venv), do: Path.join(venv, "pyvenv.cfg")

  defp real_path(path) do
    path
    |> Path.expand()
    |> Path.split()
    |> Enum.reduce("", fn part, done ->
      here = Path.join(done, part)

      case File.read_link(here) do
        {:ok, target} -> real_path(Path.expand(target, Path.dirname(here)))
        {:error, _} -> here
      end
    end)
  end
end
