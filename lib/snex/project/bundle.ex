defmodule Snex.Project.Bundle do
  # Copies of projects for a release: what is needed to run, and nothing that ties it to a place.
  #
  #     snex/python/<installation>/       a Python that uv installed, once for all that use it
  #     snex/projects/<Module>/.venv/     the packages, and a link to that Python
  #
  # Archives that follow links (the step :tar does) turn `bin/python` into a copy of the program, which would look for
  # its library in the wrong place. The file `base` beside it says where the link led; `Venv.settle/1` restores it.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.{Bytecode, Files, Venv}

  # Of the environment: what people in a shell need, and what only uv reads.
  @left_out_of_venv ~w(lib64 .gitignore .lock CACHEDIR.TAG)

  @doc """
  Copies the environment `venv` of a project, and the Python that it uses, below `target`. Returns where its Python comes
  from: `{:bundled, folder}`, or `{:system, path}` for one that the machine has to have.
  """
  @spec copy(Project.t(), venv :: Path.t(), target :: Path.t()) :: {:bundled, Path.t()} | {:system, Path.t()}
  def copy(project, venv, target) do
    copied = Path.join([target, "projects", project.name, ".venv"])
    File.mkdir_p!(Path.join(copied, "bin"))

    for name <- Files.names(venv), name not in ["bin" | @left_out_of_venv] do
      Files.copy!(Path.join(venv, name), Path.join(copied, name))
    end

    copy_scripts(Path.join(venv, "bin"), Path.join(copied, "bin"))
    Bytecode.prune(copied, Venv.cache_tag(venv))

    program = Venv.base_program(venv)

    case Path.relative_to(program, Path.join(Venv.real_path(project.root), "python")) do
      ^program ->
        Venv.link(copied, program)
        {:system, program}

      inside ->
        [installation | _] = Path.split(inside)
        copy_python(program, inside, target, Venv.cache_tag(venv))
        Venv.link(copied, Path.join("../../../../python", inside))
        {:bundled, Path.join([target, "python", installation])}
    end
  end

  # Programs that packages brought along find Python by their own place.
  defp copy_scripts(from, to) do
    for name <- Files.names(from),
        path = Path.join(from, name),
        not String.starts_with?(name, ["python", "activate", "deactivate", "pydoc"]),
        File.lstat!(path).type == :regular,
        do: File.cp!(path, Path.join(to, name))
  end

  # One Python serves all projects that use it. Of its programs only the interpreter itself: the others know where they
  # were installed.
  defp copy_python(program, inside, target, tag) do
    [installation | _] = Path.split(inside)
    to = Path.join([target, "python", installation])

    if not File.exists?(to) do
      from = program |> String.trim_trailing(inside) |> Path.join(installation)
      File.mkdir_p!(Path.join(to, "bin"))

      for name <- Files.names(from), name not in ["bin", "share"] do
        Files.copy!(Path.join(from, name), Path.join(to, name))
      end

      Bytecode.prune(to, tag)
    end

    copied = Path.join([target, "python", inside])
    if not File.exists?(copied), do: File.cp!(program, copied)
  end
end
