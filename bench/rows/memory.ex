defmodule Bench.Memory do
  @moduledoc """
  How much memory a large binary takes on its way.
  """

  alias Bench.Row

  @once Path.expand("../memory_once.exs", __DIR__)

  def rows, do: [memory: &memory/1]

  defp memory(context) do
    size = if context.quick, do: 32, else: 256

    %Row{
      name: "memory",
      what: "peak memory of both sides while #{size} MiB travel to Python; floor: the binary on each side",
      floor: [2 * size * 1024 * 1024],
      value: for(_ <- 1..max(div(context.runs, 3), 1), do: peak(context, size)),
      unit: :bytes,
      goal: :at_most,
      target: 1.3
    }
  end

  defp peak(context, size) do
    ebin = Application.app_dir(:snex, "ebin")
    {output, 0} = System.cmd("elixir", ["-pa", ebin, @once, context.python, to_string(size)])
    output |> String.trim() |> String.to_integer()
  end
end
