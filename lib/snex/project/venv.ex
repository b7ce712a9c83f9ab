defmodule Snex.Project.Venv do
  # What makes a virtual environment movable together with the Python that it belongs to.
  #
  # Two things in it are absolute. The link `bin/python`: made relative when it stays below the common root. The line
  # `home` in pyvenv.cfg, the folder of the base Python: there is no relative form of it. Python 3.10 to 3.13 do without
  # the line, 3.14 does not find the packages then, and a wrong one lets each of them load another Python's standard
  # library. So it is written again by whoever starts Python and finds that the folder has been moved.
  @moduledoc false

  alias Snex.Project.Files

  # Written by `link/2`, for archives that follow links.
  @base "bin/base"

  # From this version on Python needs the line `home`.
  @needs_home {3, 14}

  @doc """
  The environment's Python. A link: Python finds the environment by the path that it was started with.
  """
  @spec python(Path.t()) :: Path.t()
  def python(venv), do: Path.join([venv, "bin", "python"])

  @doc """
  The environment that a Python belongs to; nil for one that is installed as such.
  """
  @spec of(python :: Path.t()) :: Path.t() | nil
  def of(python) do
    venv = python |> Path.dirname() |> Path.dirname()
    if File.regular?(config(venv)), do: venv
  end

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
        name <- Files.names(dir),
        link = Path.join(dir, name),
        "/" <> _ = target <- [Files.link(link)] do
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
  The program at the end of all links: the base Python's own.
  """
  @spec base_program(Path.t()) :: Path.t()
  def base_program(venv), do: real_path(python(venv))

  @doc """
  What the names of files with compiled Python have in them, such as `cpython-313`.
  """
  @spec cache_tag(Path.t()) :: String.t()
  def cache_tag(venv) do
    {major, minor} = version(venv)
    implementation = venv |> setting("implementation") |> String.downcase()
    if implementation == "cpython", do: "cpython-#{major}#{minor}", else: "#{implementation}#{major}#{minor}"
  end

  @doc """
  Links an environment that is to travel to its Python, `target` being the way from its folder `bin`.
  """
  @spec link(Path.t(), Path.t()) :: :ok
  def link(venv, target) do
    relink(python(venv), target)
    File.write!(Path.join(venv, @base), target)

    # A Python outside is where it is, wherever the environment goes.
    if Path.type(target) == :relative and not needs_home?(venv),
      do: File.write!(config(venv), Regex.replace(~r/^home\s*=.*\n/m, File.read!(config(venv)), ""))

    settle(venv)
  end

  @doc """
  Puts right what moving has broken: the line `home` in pyvenv.cfg, where it is needed, and the link to Python, if it has
  become a copy.
  """
  @spec settle(Path.t()) :: :ok
  def settle(venv) do
    with true <- File.regular?(python(venv)) and Files.link(python(venv)) == nil,
         {:ok, target} <- File.read(Path.join(venv, @base)),
         do: relink(python(venv), target)

    case Files.link(python(venv)) do
      # A Python outside: where this environment lies makes no difference to it.
      "/" <> _ ->
        :ok

      nil ->
        :ok

      target ->
        # A release has no such line where Python does without: its folder may be one that cannot be written to.
        if setting(venv, "home") != nil or needs_home?(venv),
          do: write_home(venv, target |> Path.expand(Path.join(venv, "bin")) |> Path.dirname()),
          else: :ok
    end
  end

  defp write_home(venv, home) do
    old = File.read!(config(venv))
    others = Regex.replace(~r/^home\s*=.*\n/m, old, "")
    new = "home = #{home}\n" <> others

    # Several interpreters may start at once: each puts a whole file with the same content in its place.
    if new != old do
      unfinished = "#{config(venv)}.#{System.pid()}.#{System.unique_integer([:positive])}"
      File.write!(unfinished, new)
      File.rename!(unfinished, config(venv))
    end

    :ok
  end

  defp config(venv), do: Path.join(venv, "pyvenv.cfg")

  defp needs_home?(venv), do: version(venv) >= @needs_home

  defp version(venv) do
    [major, minor | _] = venv |> setting("version_info") |> String.split(".")
    {String.to_integer(major), String.to_integer(minor)}
  end

  # A line of pyvenv.cfg; nil when there is none of that name.
  defp setting(venv, name) do
    with [_, value] <- Regex.run(~r/^#{name}\s*=\s*(.*?)\s*$/m, File.read!(config(venv))), do: value
  end

  @doc """
  A path without links in it.
  """
  @spec real_path(Path.t()) :: Path.t()
  def real_path(path) do
    [top | parts] = path |> Path.expand() |> Path.split()

    Enum.reduce(parts, top, fn part, done ->
      here = Path.join(done, part)

      case Files.link(here) do
        nil -> here
        target -> real_path(Path.expand(target, Path.dirname(here)))
      end
    end)
  end
end
