defmodule Snex.Output do
  @moduledoc false
  # Where what Python prints goes, and printing it there.

  alias Snex.Native
  alias Snex.Options
  alias Snex.Request

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
  Prints bytes that a stream carried: `{:ok, cut}` when they are printed, or `:timeout` when their device has not taken them at
  the deadline. `cut` holds, for each stream, bytes of a character whose end is still to come.
  """
  @spec print(destination(), pid(), :stdout | :stderr, binary(), map(), Request.deadline()) ::
          {:ok, map()} | :timeout
  def print(destination, interpreter, stream, bytes, cut, deadline) do
    case Map.fetch!(destination, stream) do
      :discard ->
        {:ok, cut}

      pid when is_pid(pid) ->
        send(pid, {:snex_output, interpreter, stream, bytes})
        {:ok, cut}

      target ->
        {text, rest} = whole(Map.get(cut, stream, "") <> bytes)
        cut = if rest == "", do: Map.delete(cut, stream), else: Map.put(cut, stream, rest)
        with :ok <- show(target, interpreter, stream, text, deadline), do: {:ok, cut}
    end
  end

  defp show(:group_leader, _interpreter, _stream, text, deadline),
    do: write(Process.group_leader(), text, deadline)

  defp show(:inherit, _interpreter, :stdout, text, deadline), do: write(:user, text, deadline)
  defp show(:inherit, _interpreter, :stderr, text, deadline), do: write(:standard_error, text, deadline)

  defp show(:logger, interpreter, stream, text, _deadline) do
    level = if stream == :stdout, do: :info, else: :warning

    for line <- String.split(text, "\n", trim: true),
        do: Logger.log(level, line, snex_interpreter: interpreter, snex_stream: stream)

    :ok
  end

  # By a process of its own: a device answers to the process that asks, and nothing takes back a question. An answer that comes
  # after the deadline must not end up in the caller's mailbox.
  defp write(device, text, deadline) do
    {writer, monitor} = spawn_monitor(fn -> put_chars(device, text) end)

    receive do
      {:DOWN, ^monitor, :process, ^writer, _reason} -> :ok
    after
      Request.time_left(deadline) ->
        Process.demonitor(monitor, [:flush])
        Process.exit(writer, :kill)
        :timeout
    end
  end

  defp put_chars(device, text) do
    :io.put_chars(device, text)
  catch
    # The device is gone, or takes no text.
    _kind, _reason -> :ok
  end

  # Characters that are whole, and the bytes of one that is cut at the end. What is not UTF-8 is shown as U+FFFD.
  defp whole(bytes) do
    case :unicode.characters_to_binary(bytes) do
      text when is_binary(text) ->
        {text, ""}

      {:incomplete, text, rest} ->
        {text, rest}

      {:error, text, rest} ->
        size = byte_size(rest) - cut_off(rest)
        <<rest::binary-size(^size), cut::binary>> = rest
        {text <> String.replace_invalid(rest), cut}
    end
  end

  # How many bytes at the end begin a character that is not complete.
  defp cut_off(bytes) do
    Enum.find(1..min(byte_size(bytes), 3)//1, 0, fn size ->
      match?({:incomplete, "", _}, :unicode.characters_to_binary(binary_slice(bytes, -size, size)))
    end)
  end
end
