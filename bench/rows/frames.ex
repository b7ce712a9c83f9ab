defmodule Bench.Frames do
  @moduledoc """
  A data frame of 100,000 rows and six columns, in both directions. In Python it is one of pandas, in Elixir an Arrow stream.

  The Python that they are measured with has pandas and pyarrow; it is made once, by uv.
  """

  alias Bench.{Python, Row, Stats}

  def rows, do: [frame_to_python: &to_python/1, frame_to_elixir: &to_elixir/1]

  @toml """
  [project]
  name = "bench"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["pandas>=2.2", "pyarrow>=18"]
  """

  defp to_python(context) do
    measure(context, "frame_to_python", fn env ->
      frame = fetch(env)
      fn -> {:ok, nil} = Snex.pyeval(env, nil, %{"x" => frame}, timeout: 60_000) end
    end)
  end

  defp to_elixir(context), do: measure(context, "frame_to_elixir", fn env -> fn -> fetch(env) end end)

  defp fetch(env) do
    {:ok, %Snex.Arrow{} = frame} = Snex.pyeval(env, "return frame", timeout: 60_000)
    frame
  end

  defp measure(context, name, prepare) do
    {:ok, interpreter} =
      Snex.Interpreter.start_link(
        pyproject_toml: @toml,
        python_preference: :system,
        init_script: init(),
        init_script_timeout: 120_000
      )

    python = Snex.Interpreter.info(interpreter).executable
    floor = Python.floor(%{context | python: python}, "frame", [context.runs])
    fun = prepare.(Snex.make_env!(interpreter))

    # Each time in a process of its own, whose heap is clean.
    [_first | value] =
      for _ <- 0..context.runs, do: Task.await(Task.async(fn -> Stats.time(fun) end), :infinity)

    Snex.Interpreter.stop(interpreter)

    %Row{
      name: name,
      what:
        "a pandas frame of 100,000 rows and 6 columns; floor: Python writes it as an Arrow stream, and reads that",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 1.5
    }
  end

  # The same frame as the floor's.
  defp init do
    "import importlib.util\n" <>
      "spec = importlib.util.spec_from_file_location('floors', #{inspect(Path.expand("../floors.py", __DIR__))})\n" <>
      "floors = importlib.util.module_from_spec(spec)\n" <>
      "spec.loader.exec_module(floors)\n" <>
      "frame = floors.pandas_frame()\n"
  end
end
