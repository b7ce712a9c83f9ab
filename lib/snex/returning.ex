defmodule Snex.Returning do
  @moduledoc false
  # The deprecated option `:returning`: Python expressions, as a `return` after the code.

  alias Snex.Code

  @doc """
  Adds the expressions to the code, and warns once for each place that they are asked for in. `nil` adds nothing.
  """
  @spec append(Code.t(), nil | String.t() | [String.t()]) :: Code.t()
  def append(code, nil), do: code

  # Lines of their own keep code and expressions apart from comments at their ends.
  def append(code, expressions) do
    source = IO.iodata_to_binary([code.src, "\nreturn " | expression(expressions)])
    warn()
    %{code | src: IO.iodata_to_binary(source)}
  end

  defp expression(expression) when is_binary(expression), do: ["(\n", expression, "\n)"]
  defp expression(expressions), do: ["[", Enum.map(expressions, &[expression(&1), ","]), "]"]

  # Places that have been warned of: a table of hashes, of fixed size. Of two places that meet in a slot, each may be warned of
  # again.
  @places 4_096

  defp warn do
    {:current_stacktrace, stacktrace} = Process.info(self(), :current_stacktrace)
    caller = Enum.drop_while(stacktrace, fn {module, _, _, _} -> module in [Process, __MODULE__, Snex] end)
    mark = :erlang.phash2(Enum.take(caller, 1), 2 ** 32) + 1

    if :atomics.exchange(places(), rem(mark, @places) + 1, mark) != mark do
      IO.warn("the option :returning is deprecated: end the code with a return statement", caller)
    end
  end

  defp places do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      places = :atomics.new(@places, signed: false)
      :persistent_term.put(__MODULE__, places)
      places
    end
  end
end
