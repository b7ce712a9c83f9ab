defmodule Mix.Tasks.Snex.Python do
  @shortdoc "Runs the Python of an interpreter module"

  @moduledoc """
  Runs the Python of a module that uses `Snex.Interpreter`, with its packages and its `:python_path`.

      mix snex.python MyApp.Numpy -- -c "import numpy; print(numpy.__version__)"
      mix snex.python MyApp.Numpy --path

  The arguments after `--` are passed to Python. The task exits with Python's exit status. With `--path`, it prints the
  path of that Python, for an interactive session or an editor: `$(mix snex.python MyApp.Numpy --path)`.
  """

  use Mix.Task

  alias Snex.Interpreter.Launch
  alias Snex.Interpreter.Options
  alias Snex.Os
  alias Snex.Project

  @requirements ["compile"]

  @impl Mix.Task
  def run([name, "--path"]), do: Mix.shell().info(name |> project!() |> Project.python!())

  def run([name, "--" | args]) do
    project = project!(name)

    python = Project.python!(project)
    folders = Options.get!([python_path: project.python_path], :python_path)
    env = Map.put(Launch.activation(python), "PYTHONPATH", Launch.pythonpath(folders))

    port =
      Port.open({:spawn_executable, python}, [
        :nouse_stdio,
        :exit_status,
        args: args,
        env: for({name, value} <- env, do: {Os.characters(name), Os.characters(value)})
      ])

    receive do
      {^port, {:exit_status, 0}} -> :ok
      {^port, {:exit_status, status}} -> exit({:shutdown, status})
    end
  end

  def run(_args),
    do: Mix.raise("usage: mix snex.python Module -- ARGUMENTS, or: mix snex.python Module --path")

  defp project!(name) do
    case Project.Module.named(name) do
      {:ok, project} -> project
      {:error, message} -> Mix.raise(message)
    end
  end
end
