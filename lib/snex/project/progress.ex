defmodule Snex.Project.Progress do
  @moduledoc false
  # What is said while an environment is being made.

  @doc """
  Prints a line through the group leader. Where that is gone, nobody reads it, and the work goes on.
  """
  @spec puts(IO.chardata()) :: :ok
  def puts(line) do
    IO.puts(line)
  catch
    _kind, _reason -> :ok
  end
end
