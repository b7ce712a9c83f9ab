defmodule Snex.Output do
  @moduledoc false
  # Where what Python prints goes, and printing it there.

  alias Snex.Native
  alias Snex.Options

  require Logger

  @type target() :: :group_leader | :inherit | :logger | :discard | pid()
  @type destination() :: %{stdout: target(), stderr: target()}

  @doc """
  Checks the option `:output`, and gives each stream its target.
  """
  @spec destination(term()) :: {:ok, destination()} | {:error, String.t()}
  def destination(option) do
    streams = if Keyword.keyword?(option) and option != [], do: option, else: [stdout: option, stderr: option]

    if Enum.all?(streams, fn {name, target} -> name in [:stdout, :stderr] and target?(target) end) do
      {:ok,
       %{
         stdout: Keyword.get(streams, :stdout, :group_leader),
         stderr: Keyword.get(streams, :stderr, :group_leader)
       }}
    else
      Options.refuse(
        option,
        ":group_leader, :inherit, :logger, :discard, a pid, or [stdout: target, stderr: target]"
      )
    end
  end

  defp target?(target), do: target in [:group_leader, :inherit, :logger, :discard] or is_pid(target)

  @doc """
  Where the output of an interpreter goes.
  """
  @spec of(pid()) :: destination()
  def of(interpreter) do
    case Native.interpreter_output(interpreter) do
      # It has just gone; what it printed last is shown where the caller is.
      "" -> %{stdout: :group_leader, stderr: :group_leader}
      etf -> :erlang.binary_to_term(etf)
    end
  end

  @doc """
  Prints bytes that a stream carried. `cut` holds, for each stream, bytes of a character whose end is still to come; returned
  as they are after this.
  """
  @spec print(destination(), pid(), :stdout | :stderr, binary(), map()) :: map()
  def print(destination, interpreter, stream, bytes, cut) do
    case Map.fetch!(destination, stream) do
      :discard ->
        cut

      pid when is_pid(pid) ->
        send(pid, {:snex_output, interpreter, stream, bytes})
        cut

      target ->
        {text, rest} = whole(Map.get(cut, stream, "") <> bytes)
        show(target, interpreter, stream, text)
        if rest == "", do: Map.delete(cut, stream), else: Map.put(cut, stream, rest)
    end
  end

  defp show(:group_leader, _interpreter, _stream, text), do: write(Process.group_leader(), text)
  defp show(:inherit, _interpreter, :stdout, text), do: write(:user, text)
  defp show(:inherit, _interpreter, :stderr, text), do: write(:standard_error, text)

  defp show(:logger, interpreter, stream, text) do
    level = if stream == :stdout, do: :info, else: :warning

    for line <- String.split(text, "\n", trim: true),
        do: Logger.log(level, line, snex_interpreter: interpreter, snex_stream: stream)

    :ok
  end

  defp write(device, text) do
    # A device that is gone must not take with it what only prints there.
    _ = :io.put_chars(device, text)
    :ok
  rescue
    ErlangError -> :ok
  end

  # Characters that are whole, and the bytes of one that is cut at the end. What is not UTF-8 is shown as U+FFFD.
  defp whole(bytes) do
    case :unicode.characters_to_binary(bytes) do
      text when is_binary(text) ->
        {text, ""}

      {:incomplete, text, rest} ->
        {text, rest}

      {:error, text, <<_wrong, rest::binary>>} ->
        {following, incomplete} = whole(rest)
        {text <> "\uFFFD" <> following, incomplete}
    end
  end
end
