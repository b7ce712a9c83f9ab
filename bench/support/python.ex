defmodule Bench.Python do
  @moduledoc """
  Measurements that Python makes by itself, in a process of its own that has nothing to do with Snex's.
  """

  alias Bench.Row

  @doc """
  Runs a script of this folder's `floors.py` and returns what it prints: times in ns.
  """
  def floor(context, name, args \\ []) do
    script = Path.expand("../floors.py", __DIR__)
    package = Application.app_dir(:snex, "priv/python")

    {output, 0} =
      System.cmd(context.python, [script, name | Enum.map(args, &to_string/1)],
        env: [{"PYTHONPATH", package}]
      )

    output |> String.split() |> Enum.map(&String.to_integer/1)
  end

  @doc """
  A row for 64 MiB of something, which `measure` sends and returns the time of: each time in a process of its own, whose heap is clean.
  The floor is a pipe between two Pythons.
  """
  def beside_pipe(context, name, what, target, measure) do
    floor = floor(context, "pipe", [context.runs])
    [_first | value] = for _ <- 0..context.runs, do: Task.await(Task.async(measure), :infinity)

    %Row{
      name: name,
      what: "#{what}; floor: 64 MiB through a pipe of 1 MiB, Python to Python",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: target
    }
  end
end
