defmodule Snex.Soak.Own do
  @moduledoc """
  Interpreters that a caller has for itself for a while: checked out of a pool of its node, or a copy that it forks there.

  Whoever has checked one out leaves something in it, and nobody else may touch that. A copy is asked for what any interpreter is, and ends
  in one of several ways, or with its owner. Owners are killed while they have one.
  """

  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Pool
  alias Snex.Soak.Fleet
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests

  @init_script """
  held = {"by": None, "calls": 0, "busy": False}

  async def hold(number, owner, first):
      # The call of an owner that is dead has ended before another has this interpreter.
      alone = not held["busy"]
      held["busy"] = True
      try:
          if first:
              held.update(by=owner, calls=0)
          held["calls"] += 1
          await asyncio.sleep(0.005)
      finally:
          held["busy"] = False
      return number, held["calls"] if alone and held["by"] == owner else f"{held} instead of {owner}"

  copied = []

  def in_copy(number):
      copied.append(number)
      return number, len(copied)
  """

  @doc """
  What every interpreter starts with, for these requests.
  """
  def init_script, do: @init_script

  @doc """
  How often each is made.
  """
  def weights, do: [checkout: 40, fork: 15]

  # How long a copy may take to end, in ms: none takes as long.
  @patience 60_000

  @doc """
  As `Snex.Soak.Requests.make/3`. The interpreter is one of the caller's node, whichever was chosen.
  """
  def make(:checkout, home, _inp) do
    # Another of that name would be another pool.
    name = Enum.random(Fleet.own_pools())
    pool = Process.whereis(name) || name
    timeout = Enum.random([50, :infinity])
    raises? = :rand.uniform(8) == 1

    Requests.entered(home, :checkout, fn number ->
      try do
        Pool.checkout(
          pool,
          fn interpreter ->
            hold(home, pool, interpreter, number)
            if raises?, do: throw(:raised)
          end,
          timeout: timeout
        )
      catch
        :throw, :raised -> :answered
      else
        {:ok, _result} -> :answered
        {:error, error} -> Requests.failed(error, if(timeout == 50, do: [:overloaded], else: []), number)
      end
    end)
  end

  def make(:fork, home, _inp) do
    # A copy may be killed, which its owner does not follow.
    trapped? = Process.flag(:trap_exit, true)

    with {:ok, copy} <- fork(home) do
      ask(home, :forked, "in_copy", copy, fn number -> {[number], {number, 1}} end)
      Requests.make(Requests.choose_shared(), home, copy)
      ask(home, :forked, "in_copy", copy, fn number -> {[number], {number, 2}} end)
      finish(Enum.random([:stop, :kill, :exit]), home, copy)

      receive do
        {:EXIT, ^copy, _reason} -> :ok
      after
        @patience -> Ledger.blame(home, :lost, "a copy lives on when it was ended: #{inspect(copy)}")
      end
    end

    Process.flag(:trap_exit, trapped?)
    forget_exits()
  end

  # ---- Checked out ------------------------------------------------------------------------------------

  defp hold(home, pool, interpreter, owner) do
    for n <- 1..:rand.uniform(3) do
      # All of these are the same one to whoever has it.
      {:ok, same} = Pool.checkout(pool, & &1)
      where = Enum.random([interpreter, pool, same])
      ask(home, :checked_out, "hold", where, fn number -> {[number, owner, n == 1], {number, n}} end)
    end
  end

  # ---- Forked -----------------------------------------------------------------------------------------

  defp fork(home) do
    template = Fleet.template()
    asked = Process.whereis(template)

    Requests.entered(home, :fork, fn number ->
      case Interpreter.fork(template) do
        {:ok, copy} ->
          {:answered, copy}

        {:error, %Error{code: :call_failed} = error} ->
          if Requests.ended?(asked),
            do: {:failed, "fork: its template has ended"},
            else: {:wrong, "the template lives: #{Exception.message(error)}"}

        {:error, error} ->
          Requests.failed(error, [], number)
      end
    end)
  end

  defp finish(:stop, _home, copy) do
    Interpreter.stop(copy)
  catch
    # It has been killed.
    :exit, _gone -> :ok
  end

  defp finish(:kill, _home, copy), do: Process.exit(copy, :kill)
  defp finish(:exit, home, copy), do: Requests.deadly(:exits, home, copy)

  defp forget_exits do
    receive do
      {:EXIT, _pid, _reason} -> forget_exits()
    after
      0 -> :ok
    end
  end

  # ---- Asking -----------------------------------------------------------------------------------------

  # `call` gets the number of the request, and returns the arguments, and the right answer.
  defp ask(home, kind, function, where, call) do
    Requests.entered(home, kind, fn number ->
      {args, expected} = call.(number)

      case Snex.call(where, function, args, timeout: :infinity) do
        {:ok, ^expected} -> :answered
        {:ok, other} -> {:wrong, "got #{inspect(other)} instead of #{inspect(expected)}"}
        {:error, error} -> Requests.failed(error, [], number)
      end
    end)
  end
end
