defmodule Bench.Shared do
  @moduledoc """
  Values of 64 MiB in memory that the VM and Python share: read in place in Python, and handed over to Elixir.
  """

  alias Bench.{Python, Stats}

  @bytes 64 * 1024 * 1024

  def rows, do: [view_to_python: &view_to_python/1, shared_to_elixir: &shared_to_elixir/1]

  defp view_to_python(context) do
    value = Snex.Serde.binary(:binary.copy(<<7>>, @bytes), :memoryview)
    read = "return x[0], x[-1]"

    Python.beside_pipe(context, "view_to_python", "64 MiB as a memoryview", 0.5, fn ->
      Stats.time(fn ->
        {:ok, {7, 7}} = Snex.pyeval(context.interpreter, read, %{"x" => value}, timeout: 60_000)
      end)
    end)
  end

  defp shared_to_elixir(context) do
    env = Snex.make_env!(context.interpreter)
    fill = "import snex; x = snex.shared(#{@bytes}); x[:] = bytes([7]) * #{@bytes}"

    Python.beside_pipe(context, "shared_to_elixir", "64 MiB in memory of snex.shared", 0.1, fn ->
      Snex.pyeval!(env, fill, %{}, timeout: 60_000)

      Stats.time(fn ->
        {:ok, value} = Snex.pyeval(env, "return x", timeout: 60_000)
        @bytes = byte_size(value)
      end)
    end)
  end
end
