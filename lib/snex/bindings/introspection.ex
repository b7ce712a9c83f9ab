defmodule Snex.Bindings.Introspection do
  @moduledoc false
  # Asks the Python of a project what is in a module: one process, one answer.

  alias Snex.Bindings.Tools
  alias Snex.Interpreter.Launch
  alias Snex.Interpreter.Options
  alias Snex.Os
  alias Snex.Project
  alias Snex.Project.Files
  alias Snex.Project.Private
  alias Snex.Project.Program

  # Of what a module prints, when that is all there is to say.
  @lines 20

  @doc """
  What Python answers for these options, see `py_src/snex/_bindings/answer.py`; or why it has none.
  """
  @spec run(Project.t(), map()) :: {:ok, map()} | {:error, String.t()}
  def run(project, options) do
    {tools, complaint} =
      case Tools.install(project) do
        {:ok, folder} -> {folder, nil}
        {:error, message} -> {nil, message}
      end

    request = %{
      module: options.module,
      only: options.only,
      except: options.except,
      submodules: options.submodules,
      tools: tools
    }

    with {:ok, answer} <- ask(project, request), do: {:ok, Map.put(answer, "complaint", complaint)}
  end

  defp ask(project, request) do
    folder =
      Path.join(System.tmp_dir!(), "snex-bindings-#{System.pid()}-#{System.unique_integer([:positive])}")

    Private.make!(folder)

    try do
      {question, answer} = {Path.join(folder, "request.json"), Path.join(folder, "answer.json")}
      File.write!(question, JSON.encode!(request))
      {status, lines} = python(project, [script(), question, answer])
      read(File.read(answer), status, lines, request.module)
    after
      Files.remove!(folder)
    end
  end

  defp python(project, args) do
    python = Project.python!(project)
    folders = Options.get!([python_path: project.python_path], :python_path)

    env =
      Map.merge(Launch.activation(python), %{
        "PYTHONPATH" => Launch.pythonpath(folders),
        # What is shown of sets is the same each time.
        "PYTHONHASHSEED" => "0",
        "PYTHONIOENCODING" => "utf-8:replace"
      })

    Program.run(python, args, project.base, env, fn _line, _lines -> :ok end)
  end

  @doc """
  The program that Python runs.
  """
  @spec script() :: Path.t()
  def script, do: Os.app_dir(:snex, "priv/python/snex/_bindings/__main__.py")

  defp read({:ok, text}, _status, _lines, module) do
    case JSON.decode!(text) do
      %{"error" => traceback} -> {:error, "Python can't import #{module}:\n\n#{indent(traceback)}"}
      %{"modules" => _} = answer -> {:ok, answer}
    end
  end

  defp read({:error, _}, status, lines, module) do
    said = lines |> Enum.take(-@lines) |> Enum.join("\n")

    {:error,
     "Python ended with status #{status} while it imported or inspected #{module}. It printed:\n\n#{indent(said)}"}
  end

  @doc """
  A text of Python's, apart from ours.
  """
  @spec indent(String.t()) :: String.t()
  def indent(text),
    do: text |> String.trim_trailing() |> String.split("\n") |> Enum.map_join("\n", &("    " <> &1))
end
