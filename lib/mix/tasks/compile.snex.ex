defmodule Mix.Tasks.Compile.Snex do
  @moduledoc """
  Keeps the Python environments of a Mix project complete and tidy.

  Add it to `mix.exs`, after Mix's own compilers:

      def project do
        [
          ...
          compilers: Mix.compilers() ++ [:snex]
        ]
      end

  With it, `mix compile`

    * makes environments that are missing or out of date, including those of dependencies: Mix compiles a dependency
      from Hex or git only once, and does not notice when its environment is removed later (by `mix clean`, for
      example);
    * removes the environments of modules that no application of the build has any longer.

  `mix clean` removes all environments, and the Pythons that uv installed, from the build folder of the current Mix
  environment (`_build/$MIX_ENV/snex`).

  Without this compiler, an environment is made when its module is compiled, and removed when some other module that uses
  `Snex.Interpreter` is compiled; `mix clean --deps` removes all of them.
  """

  use Mix.Task.Compiler

  alias Mix.Task.Compiler.Diagnostic
  alias Snex.Project

  @impl true
  def run(_args) do
    stale = Enum.filter(Project.Module.in_project(), &Project.stale?/1)
    problems = Enum.flat_map(stale, &make/1)
    Project.Tidy.run()

    cond do
      problems != [] -> {:error, problems}
      stale != [] -> {:ok, []}
      true -> {:noop, []}
    end
  end

  defp make(project) do
    case Project.install(project) do
      :ok ->
        []

      {:error, message} ->
        message = "the Python environment of #{inspect(project.module)} could not be made: #{message}"
        Mix.shell().error(message)
        file = Path.join(Project.dir(project), "pyproject.toml")
        [%Diagnostic{compiler_name: "snex", file: file, position: 0, message: message, severity: :error}]
    end
  end

  @impl true
  def clean do
    Project.Files.remove!(Project.build_root())
    :ok
  end
end
