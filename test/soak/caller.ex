defmodule Snex.Soak.Caller do
  @moduledoc """
  A process that makes one request after the other, and looks after each for messages that nobody should have sent.
  """

  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests

  @doc """
  Runs until it is killed, or told to finish. `seed` makes the choices of one caller those of another run.
  """
  def run(home, seed, interpreters) do
    Ledger.enter(home)
    :rand.seed(:exsss, seed)
    loop(home, interpreters)
  end

  defp loop(home, interpreters) do
    receive do
      {:soak_finish, from} ->
        # With what it has of objects.
        :erlang.garbage_collect()
        send(from, {:soak_finished, self()})
        wait_for_check(home)
    after
      0 ->
        where = Enum.random(interpreters)
        kind = if Fleet.each_call?(where), do: Requests.choose_single(), else: Requests.choose()
        Requests.remember_cuts()
        Requests.make(kind, home, seen_from_here(where))
        look(home)
        loop(home, interpreters)
    end
  end

  # All interpreters are gone when it is told to look for the last time.
  defp wait_for_check(home) do
    receive do
      {:soak_check, from} ->
        look(home)
        send(from, {:soak_checked, self()})
    end
  end

  # What is in the mailbox between two requests.
  defp look(home) do
    receive do
      # Of a request that has failed since. Those that have come are kept: none comes twice.
      {:soak_said, number} ->
        if Process.put({:said, number}, true),
          do: Ledger.blame(home, :twice, "message of #{number} has come twice")

        look(home)

      stray when not (is_tuple(stray) and elem(stray, 0) in [:soak_finish, :soak_check]) ->
        Ledger.blame(home, :twice, "stray message: #{inspect(stray, limit: 10, printable_limit: 100)}")
        look(home)
    after
      0 -> :ok
    end
  end

  defp seen_from_here({name, node}) when node == node(), do: name
  defp seen_from_here(elsewhere), do: elsewhere
end
