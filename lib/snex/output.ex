defmodule Snex.Output do
  @moduledoc false
  # Where what Python prints goes, and printing it there.

  alias Snex.Native
  alias Snex.Options
  alias Snex.Request

  require Logger

  # Bytes of a line without an end from which on it is logged in parts.
  @longest_line 64 * 1024

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

  @typedoc "Until when a device is waited for: a point in time, or the end of a process that is monitored."
  @type patience() :: Request.deadline() | {:alive, monitor :: reference()}

  @doc """
  Prints bytes that a stream carried: `{:ok, cut}` when they are printed, or `:timeout` when their device has not taken them
  by then. `cut` holds, for each stream, bytes of a character whose end is still to come; for a log, those of a line.
  """
  @spec print(destination(), pid(), :stdout | :stderr, binary(), map(), patience()) ::
          {:ok, map()} | :timeout
  def print(destination, interpreter, stream, bytes, cut, patience) do
    case Map.fetch!(destination, stream) do
      :discard ->
        {:ok, cut}

      pid when is_pid(pid) ->
        send(pid, {:snex_output, interpreter, stream, bytes})
        {:ok, cut}

      :logger ->
        {:ok, keep(cut, stream, log(interpreter, stream, Map.get(cut, stream, ""), bytes))}

      target ->
        {text, rest} = whole(Map.get(cut, stream, "") <> bytes)
        with :ok <- write(device(target, stream), text, patience), do: {:ok, keep(cut, stream, rest)}
    end
  end

  defp keep(cut, stream, ""), do: Map.delete(cut, stream)
  defp keep(cut, stream, rest), do: Map.put(cut, stream, rest)

  defp device(:group_leader, _stream), do: Process.group_leader()
  defp device(:inherit, :stdout), do: :user
  defp device(:inherit, :stderr), do: :standard_error

  @doc """
  Logs what has come of lines whose ends will not come any more. What `cut` holds for other targets than a log is dropped.
  """
  @spec flush(destination() | nil, pid(), map()) :: :ok
  def flush(destination, interpreter, cut) do
    for {stream, line} <- cut, destination[stream] == :logger, do: log_line(interpreter, stream, line)
    :ok
  end

  # Logs the lines that are whole, and returns the beginning of the next one. Only what is new is looked at.
  defp log(interpreter, stream, begun, bytes) do
    [first | others] = :binary.split(bytes, "\n", [:global])
    {lines, [rest]} = Enum.split([begun <> first | others], -1)
    Enum.each(lines, &log_line(interpreter, stream, &1))

    if byte_size(rest) > @longest_line do
      {text, cut} = whole(rest)
      log_line(interpreter, stream, text)
      cut
    else
      # A part of a chunk would keep all of it; what is appended to is copied less often than it grows.
      if others == [], do: rest, else: :binary.copy(rest)
    end
  end

  defp log_line(_interpreter, _stream, ""), do: :ok

  defp log_line(interpreter, stream, line) do
    level = if stream == :stdout, do: :info, else: :warning
    Logger.log(level, String.replace_invalid(line), snex_interpreter: interpreter, snex_stream: stream)
  end

  # By a process of its own: a device answers to the process that asks, and nothing takes back a question. An answer that comes
  # after the deadline must not end up in the caller's mailbox.
  defp write(device, text, patience) do
    waiting = self()
    {writer, monitor} = spawn_monitor(fn -> put_chars(device, text, waiting) end)
    {alive, deadline} = if is_tuple(patience), do: {elem(patience, 1), :infinity}, else: {nil, patience}

    receive do
      {:DOWN, ^monitor, :process, ^writer, _reason} -> :ok
      {:DOWN, ^alive, :process, _pid, _reason} -> give_up(writer, monitor)
    after
      Request.time_left(deadline) -> give_up(writer, monitor)
    end
  end

  defp give_up(writer, monitor) do
    Process.demonitor(monitor, [:flush])
    Process.exit(writer, :kill)
    :timeout
  end

  # As `:io.put_chars/2`, until the process that waits for it is gone.
  defp put_chars(device, text, waiting) do
    monitor = Process.monitor(device)
    end_of_waiting = Process.monitor(waiting)
    send(device, {:io_request, self(), monitor, {:put_chars, :unicode, text}})

    receive do
      {:io_reply, ^monitor, _reply} -> :ok
      {:DOWN, ^monitor, :process, _device, _reason} -> :ok
      {:DOWN, ^end_of_waiting, :process, _pid, _reason} -> :ok
    end
  catch
    # The device has no process.
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
