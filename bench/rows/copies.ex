defmodule Bench.Copies do
  @moduledoc """
  Copies of an interpreter, by fork: how soon they are there, and how much memory they take.
  """

  alias Bench.Row
  alias Snex.Interpreter

  @packages """
  [project]
  name = "bench-copies"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy", "pandas"]
  """

  @imports "import numpy, pandas"
  @mebibytes 200
  @copies 8

  def rows, do: [copy: &copy/1, copies_memory: &copies_memory/1]

  defp copy(context) do
    opts = [pyproject_toml: @packages, python_preference: :system, init_script: @imports]
    started = fn -> first_answer(fn -> Interpreter.start_link(opts) end) end

    # Packages are installed, and compiled.
    started.()
    {:ok, template} = Interpreter.start_link(opts)
    copied = fn -> first_answer(fn -> Interpreter.fork(template) end) end

    row = %Row{
      name: "copy",
      what: "a copy with numpy and pandas, to its first answer; floor: to start and import them",
      floor: for(_ <- 1..max(div(context.runs, 2), 2), do: started.()),
      value: for(_ <- 1..(context.runs * 5), do: copied.()),
      unit: :ns,
      goal: :at_most,
      target: 0.03
    }

    Interpreter.stop(template)
    row
  end

  defp copies_memory(context) do
    script = "data = b'x' * (#{@mebibytes} << 20)"
    {:ok, template} = Interpreter.start_link(python: context.python, init_script: script)
    alone = memory([template])

    copies =
      for _ <- 1..@copies do
        {:ok, copy} = Interpreter.fork(template)
        {:ok, _sum} = Snex.pyeval(copy, "return data.count(b'y')", %{}, timeout: :infinity)
        copy
      end

    all = memory([template | copies])
    Enum.each(copies ++ [template], &Interpreter.stop/1)

    %Row{
      name: "copies_memory",
      what:
        "memory of #{@copies} copies of a template with #{@mebibytes} MiB, and of the template; floor: the template alone",
      floor: [alone],
      value: [all],
      unit: :bytes,
      goal: :at_most,
      target: 1.5
    }
  end

  # The time to the first answer alone.
  defp first_answer(start) do
    {time, interpreter} =
      :timer.tc(
        fn ->
          {:ok, interpreter} = start.()
          {:ok, 1} = Snex.pyeval(interpreter, "return 1")
          interpreter
        end,
        :nanosecond
      )

    Interpreter.stop(interpreter)
    time
  end

  # Each page counts for each process by its share.
  defp memory(interpreters) do
    interpreters
    |> Enum.map(fn interpreter ->
      [_, kibibytes] =
        Regex.run(~r/^Pss: +(\d+) kB$/m, File.read!("/proc/#{Interpreter.os_pid(interpreter)}/smaps_rollup"))

      String.to_integer(kibibytes) * 1024
    end)
    |> Enum.sum()
  end
end
