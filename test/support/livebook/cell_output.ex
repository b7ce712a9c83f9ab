defmodule Snex.Livebook.CellOutput do
  @moduledoc """
  The group leader of an evaluator, and of all that it starts: collects what is printed and logged while a cell runs.

  There is one for the whole notebook, as in Livebook: what a process prints belongs to the cell that runs at that time.
  """

  @doc """
  Starts the process.
  """
  def start_link do
    spawn_link(fn ->
      # By which the handler of logs tells it from other group leaders.
      Process.put(__MODULE__, true)
      loop([], [])
    end)
  end

  @doc """
  What came since the last time: `{printed, logged}`.
  """
  def take(pid), do: call(pid, :take)

  ## A handler of `:logger`: what a process logs belongs to the same cell as what it prints.

  @doc false
  def log(%{level: level, meta: meta} = event, _config) do
    with %{gl: gl} when is_pid(gl) <- meta,
         {:dictionary, dictionary} <- Process.info(gl, :dictionary),
         true <- Keyword.get(dictionary, __MODULE__, false) do
      text = event |> :logger_formatter.format(%{template: [:msg], single_line: false}) |> to_string()
      call(gl, {:log, {level, text}})
    end
  end

  defp call(pid, request) do
    monitor = Process.monitor(pid)
    send(pid, {__MODULE__, self(), monitor, request})

    receive do
      {^monitor, reply} ->
        Process.demonitor(monitor, [:flush])
        reply

      {:DOWN, ^monitor, _, _, reason} ->
        exit(reason)
    end
  end

  defp loop(printed, logged) do
    receive do
      {__MODULE__, from, reference, :take} ->
        send(from, {reference, {IO.iodata_to_binary(printed), Enum.reverse(logged)}})
        loop([], [])

      {__MODULE__, from, reference, {:log, event}} ->
        send(from, {reference, :ok})
        loop(printed, [event | logged])

      {:io_request, from, reference, request} ->
        {reply, text} = io(request)
        send(from, {:io_reply, reference, reply})
        loop([printed | text], logged)
    end
  end

  # Erlang's I/O protocol.
  defp io({:put_chars, encoding, chars}), do: put(encoding, fn -> chars end)
  defp io({:put_chars, encoding, m, f, a}), do: put(encoding, fn -> apply(m, f, a) end)
  defp io({:put_chars, chars}), do: io({:put_chars, :latin1, chars})
  defp io({:put_chars, m, f, a}), do: io({:put_chars, :latin1, m, f, a})
  defp io({:setopts, _opts}), do: {:ok, []}
  defp io(:getopts), do: {[binary: true, encoding: :unicode], []}

  defp io({:requests, requests}) do
    Enum.reduce(requests, {:ok, []}, fn request, {_reply, text} ->
      {reply, more} = io(request)
      {reply, [text | more]}
    end)
  end

  # Nobody is there to type.
  defp io(_request), do: {{:error, :enotsup}, []}

  defp put(encoding, chars) do
    {:ok, [:unicode.characters_to_binary(chars.(), encoding)]}
  rescue
    _ in [ArgumentError, ErlangError] -> {{:error, :put_chars}, []}
  end
end
