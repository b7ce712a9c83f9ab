defmodule Snex.Interpreter.Output do
  @moduledoc false
  # The process that prints what Python prints, to the group leader of the interpreter process.
  #
  # Chunks come one at a time for each stream: the next is read from Python's pipe only when this one is acknowledged, so a
  # slow device makes Python wait, and nothing piles up. Linked to the interpreter process, and gone with it.

  alias Snex.Native

  @doc """
  Starts the process, linked to the calling interpreter process, whose group leader it inherits.
  """
  @spec start_link(pid()) :: pid()
  def start_link(interpreter) do
    spawn_link(fn ->
      :proc_lib.set_label({__MODULE__, interpreter})
      loop(interpreter, %{stdout: "", stderr: ""})
    end)
  end

  # `rest` holds, for each stream, the bytes of a character whose end is in the next chunk.
  defp loop(interpreter, rest) do
    receive do
      {:snex_output, stream, chunk} ->
        {text, incomplete} = split(rest[stream] <> chunk)
        print(text)
        Native.output_read(interpreter, stream)
        loop(interpreter, %{rest | stream => incomplete})
    end
  end

  defp print(text) do
    # A device that is gone must not take the interpreter with it.
    _ = :io.put_chars(:erlang.group_leader(), text)
  rescue
    ErlangError -> :ok
  end

  # Characters that are whole, and the bytes of one that is cut at the end. What is not UTF-8 is shown as U+FFFD.
  defp split(bytes) do
    case :unicode.characters_to_binary(bytes) do
      text when is_binary(text) ->
        {text, ""}

      {:incomplete, text, rest} ->
        {text, rest}

      {:error, text, <<_wrong, rest::binary>>} ->
        {following, incomplete} = split(rest)
        {text <> "\uFFFD" <> following, incomplete}
    end
  end
end
