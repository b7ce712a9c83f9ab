defmodule Snex.HeldSchedulers do
  @moduledoc """
  Listens to which processes hold a normal scheduler.

  The VM measures by the clock on the wall. On a busy machine, the operating system takes the processor from a scheduler now and
  then, and whichever process runs there is reported. Linux counts for how long each thread has waited for a processor: that
  much of a report does not count here.
  """

  import ExUnit.Assertions

  @longest_ms 20

  # Room for whatever a process makes: collecting garbage in a large heap takes its time as well.
  @heap_words 40_000_000

  @doc """
  Runs `fun` in a process of its own, and returns what the VM reports meanwhile of processes that hold a scheduler for
  #{@longest_ms} ms or more.
  """
  def held(fun) do
    listener = listener()
    before = :erlang.system_monitor(listener, [{:long_schedule, @longest_ms}])
    parent = self()

    {pid, monitor} =
      :erlang.spawn_opt(
        fn ->
          fun.()
          send(parent, {:done, self()})
          # A report is made when a process pauses: once it goes on after this, there are no more of it.
          receive do
            :end -> :ok
          end
        end,
        [:monitor, min_heap_size: @heap_words]
      )

    receive do
      {:done, ^pid} ->
        send(pid, :end)

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        flunk("the process has failed: #{inspect(reason, limit: 20, printable_limit: 100)}")
    end

    assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 60_000
    :erlang.system_monitor(before)
    send(listener, {:tell, self()})
    assert_receive {:held, held}, 60_000
    held
  end

  # Looks often at how long the schedulers have waited for a processor, so that it can tell for each report.
  defp listener do
    threads = scheduler_threads()

    listen = fn listen, looks, held ->
      receive do
        {:monitor, _pid_or_port, :long_schedule, info} ->
          looks = [{now, waited} | before] = [look(threads) | looks]
          since = now - info[:timeout] - @longest_ms
          {_then, waited_then} = Enum.find(before, List.last(before), fn {time, _} -> time <= since end)
          waited = Enum.zip_with(waited, waited_then, &-/2) |> Enum.max(fn -> 0 end)

          if info[:timeout] - waited < @longest_ms,
            do: listen.(listen, looks, held),
            else: listen.(listen, looks, [info | held])

        {:tell, who} ->
          send(who, {:held, Enum.reverse(held)})
      after
        5 -> listen.(listen, [look(threads) | looks], held)
      end
    end

    :erlang.spawn_opt(fn -> listen.(listen, [look(threads)], []) end, [:link, priority: :high])
  end

  # None where the operating system does not tell.
  defp scheduler_threads do
    for thread <- Path.wildcard("/proc/self/task/*"),
        {:ok, "erts_sched_" <> _} <- [File.read(Path.join(thread, "comm"))],
        do: Path.join(thread, "schedstat")
  end

  # The time, and for how long each thread has waited for a processor, in milliseconds.
  defp look(threads) do
    waited =
      for thread <- threads do
        [_running, waited, _slices] = thread |> File.read!() |> String.split()
        div(String.to_integer(waited), 1_000_000)
      end

    {System.monotonic_time(:millisecond), waited}
  end
end
