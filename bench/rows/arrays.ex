defmodule Bench.Arrays do
  @moduledoc """
  Arrays of 64 MiB, in both directions. Python uses its array where it has arrived, and nothing of it is read.

  The targets are those of shared memory; a pipe alone does not reach them.
  """

  alias Bench.{Python, Stats}

  @numbers 8 * 1024 * 1024

  def rows, do: [array_to_python: &to_python/1, array_to_elixir: &to_elixir/1]

  defp to_python(context) do
    array = Snex.Array.new(:binary.copy(<<0::64>>, @numbers), {:f, 64}, {@numbers})

    Python.beside_pipe(context, "array_to_python", "an array of 64 MiB", 0.5, fn ->
      Stats.time(fn ->
        {:ok, nil} = Snex.pyeval(context.interpreter, nil, %{"x" => array}, timeout: 60_000)
      end)
    end)
  end

  defp to_elixir(context) do
    env = Snex.make_env!(context.interpreter)
    # Without numpy, a Python's array of numbers is such a view.
    Snex.pyeval!(env, "x = memoryview(bytearray(8 * #{@numbers})).cast('d')")

    Python.beside_pipe(context, "array_to_elixir", "an array of 64 MiB", 0.8, fn ->
      Stats.time(fn ->
        {:ok, %Snex.Array{shape: {@numbers}}} = Snex.pyeval(env, "return x", timeout: 60_000)
      end)
    end)
  end
end
