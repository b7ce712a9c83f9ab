defmodule Snex.Release do
  @moduledoc """
  Puts the Python of an application, with its packages, into a release.

  The Python and the packages of modules with `use Snex.Interpreter` are below `_build`. A step after `:assemble` copies
  them into the release:

      def project do
        [
          releases: [
            my_app: [steps: [:assemble, &Snex.Release.after_assemble/1]]
          ]
        ]
      end

  The release then has a folder `snex` with the projects of its modules and the Pythons that they use. It can be moved,
  and runs without uv, Rust or the source.

  Packages that uv installs from folders, such as workspace members and editable sources, are built when the release is
  made, and are ordinary packages in it. An editable package that was installed by hand, outside of uv's project, is an
  error. Folders that `:python_path` names by their paths are not copied, and the step says so; folders of an
  application, as in `python_path: {:my_app, "priv/python"}`, are part of the release.

  A Python of the system is not copied, because it would not run elsewhere. An environment uses such a Python with
  `python_preference: :system`, or if uv could not download one. The step then says which Python the target machine
  needs, and at which path. `python_preference: :only_managed` makes sure that a release contains its Python.

  Python compiles a package when it is first imported, and at each start if it cannot write to the package's folder.
  With `UV_COMPILE_BYTECODE=1` in the environment of `mix compile`, uv compiles packages when it installs them.

  Python 3.14 reads an absolute path from a file in its environment. After the release has been moved, Snex corrects the
  path at the next start, so with 3.14 that folder has to be writable at that time. Earlier versions don't need this.
  """

  alias Snex.Project
  alias Snex.Project.{Bundle, Bytecode}

  @doc """
  Copies what the release's interpreters need to `<release>/snex`, prints what it copied, and returns the release.

  If the step `:tar` follows, the folder is part of the archive.

  An environment that is missing or out of date is made first. Raises `Mix.Error` if that fails.

      iex> path = System.tmp_dir!()
      iex> release = %Mix.Release{path: path, applications: %{}, steps: [:assemble]}
      iex> Snex.Release.after_assemble(release).steps
      [:assemble]
  """
  @spec after_assemble(Mix.Release.t()) :: Mix.Release.t()
  def after_assemble(%Mix.Release{} = release) do
    target = Path.join(release.path, "snex")
    Project.Files.remove!(target)

    case projects(release) do
      [] ->
        release

      projects ->
        for project <- projects, do: bundle(project, target)
        compile_package(release, Enum.uniq_by(projects, &Project.Venv.cache_tag(Project.venv(&1))))
        Mix.shell().info([:green, "* copied ", :reset, "snex (#{megabytes(target)} MB of Python)"])
        %{release | overlays: ["snex" | release.overlays]}
    end
  end

  defp bundle(project, target) do
    for folder <- List.wrap(project.python_path), is_binary(folder) do
      Mix.shell().info([
        :yellow,
        "* #{inspect(project.module)} has python_path: #{inspect(folder)}, which is not part of the release: the target machine needs it at ",
        "the same path. A folder of an application is part of it, as in `python_path: {:my_app, \"priv/python\"}`"
      ])
    end

    # Up to date after `mix compile`, but for that of a dependency which was removed since; see `Mix.Tasks.Compile.Snex`.
    case Project.with_release(project, &Bundle.copy(project, &1, target)) do
      {:error, message} ->
        Mix.raise("the Python environment of #{inspect(project.module)} could not be made: #{message}")

      {:ok, {:bundled, _folder}} ->
        :ok

      {:ok, {:system, python}} ->
        Mix.shell().info([
          :yellow,
          "* #{inspect(project.module)} uses a Python of the system: the target machine needs the same one at #{python}. ",
          "`python_preference: :only_managed` would put one into the release"
        ])
    end
  end

  # The package of ours, which all of them load: for each version of Python there is.
  defp compile_package(release, projects) do
    for {:snex, properties} <- release.applications,
        package = Path.expand(Path.join([release.path, "lib", "snex-#{properties[:vsn]}", "priv", "python"])),
        {project, index} <- Enum.with_index(projects) do
      venv = Project.venv(project)
      if index == 0, do: Bytecode.prune(package, Project.Venv.cache_tag(venv))
      Bytecode.compile!(package, Project.Venv.python(venv))
    end
  end

  defp projects(release) do
    for {app, properties} <- release.applications,
        not Keyword.get(properties, :otp_app?, false),
        project <- Project.Module.in_ebin(Path.join(properties[:path], "ebin")),
        do: Project.Module.moved(project, app)
  end

  defp megabytes(folder) do
    bytes =
      for path <- Project.Files.walk(folder),
          {:ok, %{type: :regular, size: size}} <- [File.lstat(path)],
          reduce: 0,
          do: (sum -> sum + size)

    Float.round(bytes / 1_000_000, 1)
  end
end
