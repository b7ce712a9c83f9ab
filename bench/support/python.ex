defmodule Bench.Python do
  @moduledoc """
  Measurements that Python makes by itself, in a process of its own that has nothing to do with Snex's.
  """

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
end
