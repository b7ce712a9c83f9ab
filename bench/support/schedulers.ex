defmodule Bench.Schedulers do
  @moduledoc """
  Listens to how long normal schedulers are held by processes that are inside of one of Snex's NIFs.
  """

  @limit_ms 2

  @doc "Runs `fun` and returns its result, with the longest such time in ms: 0 when there was none of #{@limit_ms} ms."
  def longest(fun) do
    listener = spawn_link(fn -> listen(0) end)
    before = :erlang.system_monitor(listener, long_schedule: @limit_ms)
    result = fun.()
    :erlang.system_monitor(before)
    send(listener, {:tell, self()})

    receive do
      {:longest, longest} -> {result, longest}
    end
  end

  defp listen(longest) do
    receive do
      {:monitor, pid, :long_schedule, info} when is_pid(pid) ->
        inside = for {place, {Snex.Native, _, _}} when place in [:in, :out] <- info, do: info[:timeout]
        listen(Enum.max([longest | inside]))

      {:tell, who} ->
        send(who, {:longest, longest})

      _other ->
        listen(longest)
    end
  end
end
