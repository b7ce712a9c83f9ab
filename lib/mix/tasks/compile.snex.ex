defmodule Mix.Tasks.Compile.Snex do
  @moduledoc """
  Keeps the Python environments of a Mix project tidy. To be added to `mix.exs`, after Mix's own compilers:

      def project do
        [
          ...
          compilers: Mix.compilers() ++ [:snex]
        ]
      end

  `mix compile` then removes the environments of modules that are gone, and `mix clean` removes all of them, with the
  Pythons that uv installed, from the build folder of the current environment (`_build/$MIX_ENV/snex`).

  Modules with `use Snex.Interpreter` work without it: their environments are made when they are compiled. Then what
  belongs to a removed module goes when some other module of that kind is compiled, and `mix clean --deps` removes all.
  """

  use Mix.Task.Compiler

  alias Snex.Project

  @impl true
  def run(_args) do
    Project.Tidy.run()
    {:noop, []}
  end

  @impl true
  def clean do
    File.rm_rf!(Project.build_root())
    :ok
  end
end
