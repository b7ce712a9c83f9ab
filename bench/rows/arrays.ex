defmodule Bench.Arrays do
  @moduledoc """
  Arrays of 64 MiB, in both directions. Neither side is told what is in them: Python reads its array where it has arrived.

  The targets are those of shared memory; a pipe alone does not reach them.
  """

  alias Bench.{Python, Row, Stats}

  @numbers 8 * 1024 * 1024

  def rows, do: [array_to_python: &to_python/1, array_to_elixir: &to_elixir/1]

  defp to_python(context) do
    array = Snex.Array.new(:binary.copy(<<0::64>>, @numbers), {:f, 64}, {@numbers})

    row(context, "array_to_python", 0.5, fn ->
      {:ok, nil} = Snex.pyeval(context.interpreter, nil, %{"x" => array}, timeout: 60_000)
    end)
  end

  defp to_elixir(context) do
    env = Snex.make_env!(context.interpreter)
    # Without numpy, a Python's array of numbers is such a view.
    Snex.pyeval!(env, "x = memoryview(bytearray(8 * #{@numbers})).cast('d')")

    row(context, "array_to_elixir", 0.8, fn ->
      {:ok, %Snex.Array{shape: {@numbers}}} = Snex.pyeval(env, "return x", timeout: 60_000)
    end)
  end

  # Each time in a process of its own, whose heap is clean.
  defp row(context, name, target, fun) do
    floor = Python.floor(context, "pipe", [context.runs])

    [_first | value] =
      for _ <- 0..context.runs, do: Task.await(Task.async(fn -> Stats.time(fun) end), :infinity)

    %Row{
      name: name,
      what: "an array of 64 MiB; floor: 64 MiB through a pipe of 1 MiB, Python to Python",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: target
    }
  end
end
