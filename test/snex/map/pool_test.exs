defmodule Snex.Map.PoolTest do
  # Maps on a pool: its interpreters share the elements.
  use Snex.Case, async: true

  import Snex.Pools

  alias Snex.Pool

  @moduletag :capture_log

  @script """
  import os, signal

  def die(x):
      if x == 3: os.kill(os.getpid(), signal.SIGKILL)
      return x

  async def meet(f):
      await f()
      return os.getpid()
  """

  setup do
    {:ok, pool: start_pool!(size: 2, init_script: @script)}
  end

  test "results are those of the elements, in order", %{pool: pool} do
    for opts <- [[], [stream: true], [concurrency: 1], [concurrency: 5], [demand: 1]] do
      assert pool |> Snex.map("abs", -1..-2_000//-1, opts) |> Enum.to_list() == Enum.map(1..2_000, &{:ok, &1})
    end
  end

  test "so many calls are under way as the pool runs at a time", %{pool: pool} do
    assert Pool.capacity(pool) == 2
    assert Pool.capacity(start_pool!(size: 1, concurrency: 3)) == 3
    assert Pool.capacity(start_interpreter!()) == 1
    assert Pool.capacity(:nobody) == 1
    test = self()

    meet = fn ->
      send(test, {:arrived, self()})
      receive do: (:go -> nil)
    end

    map = Task.async(fn -> Snex.map(pool, "meet", [meet, meet], timeout: 60_000) end)
    pids = for _ <- 1..2, do: assert_receive({:arrived, pid}, 60_000) && pid
    for pid <- pids, do: send(pid, :go)
    assert [{:ok, one}, {:ok, other}] = Task.await(map, :infinity)
    assert one != other
  end

  test "an object is used where it is", %{pool: pool} do
    objects = for n <- 1..20, do: Snex.call!(pool, "list", [[n]], returns: :object)
    extra = for {:ok, object} <- Snex.map(pool, "list", Enum.map(21..40, &[&1]), returns: :object), do: object
    assert Snex.map(pool, "sum", objects ++ extra) == Enum.map(1..40, &{:ok, &1})
  end

  test "only what an interpreter was about when it went down has its error", %{pool: pool} do
    results = Snex.map(pool, "die", 1..50, demand: 1)
    assert length(results) == 50

    assert [{{:error, %Error{code: :interpreter_exited}}, 3}] =
             results |> Enum.with_index(1) |> Enum.reject(&match?({{:ok, _value}, _n}, &1))
  end
end
