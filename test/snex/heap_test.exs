defmodule Snex.HeapTest do
  use Snex.Case, async: true

  alias Snex.Heap

  # In a process of its own, whose heap is small.
  defp alone(fun), do: Task.await(Task.async(fun), 60_000)

  defp heap, do: Process.info(self(), :total_heap_size) |> elem(1)

  defp least, do: Process.info(self(), :min_heap_size) |> elem(1)

  test "there is room while the function runs, and the process is as before" do
    alone(fn ->
      before = least()
      assert Heap.with_room(500_000, fn -> {:made, heap() >= 500_000} end) == {:made, true}
      assert least() == before
    end)
  end

  test "the process is as before if the function raises" do
    alone(fn ->
      before = least()
      assert catch_throw(Heap.with_room(500_000, fn -> throw(:it) end)) == :it
      assert least() == before
    end)
  end

  test "there is no more than a bound" do
    alone(fn ->
      assert Heap.with_room(1_000_000_000, fn -> heap() end) in (8 * 1024 * 1024)..(16 * 1024 * 1024)
    end)
  end

  test "the limit of a process leaves it no room that it may not have" do
    alone(fn ->
      Process.flag(:max_heap_size, %{size: 200_000, kill: true, error_logger: false})
      assert Heap.with_room(500_000, fn -> heap() < 200_000 end)
    end)
  end

  test "a large heap stays as it is" do
    alone(fn ->
      list = Enum.to_list(1..200_000)
      :erlang.garbage_collect()
      before = heap()
      assert Heap.with_room(500_000, fn -> heap() end) == before
      assert length(list) == 200_000
    end)
  end

  # The sizes in words of what lies beside the heap whenever it is collected, while `fun` runs.
  defp collected_beside(fun) do
    alone(fn ->
      process = self()
      tracer = spawn(fn -> Process.sleep(:infinity) end)
      :erlang.trace(process, true, [:garbage_collection, {:tracer, tracer}])
      fun.()
      :erlang.trace(process, false, [:garbage_collection])
      delivered = :erlang.trace_delivered(process)
      assert_receive {:trace_delivered, ^process, ^delivered}
      {:messages, messages} = Process.info(tracer, :messages)
      Process.exit(tracer, :kill)
      for {:trace, ^process, _what, info} <- messages, do: info[:mbuf_size]
    end)
  end

  test "large values from Python are made on the heap, and not copied there" do
    py = start_interpreter!()
    {:ok, env} = Snex.make_env(py)

    for code <- [
          "range(100_000)",
          "[{'a': n, 'b': n / 3} for n in range(20_000)]",
          "[n % 100 for n in range(300_000)]"
        ] do
      {:ok, nil} = Snex.pyeval(env, "x = list(#{code})")
      beside = collected_beside(fn -> {:ok, [_ | _]} = Snex.pyeval(env, "return x") end)
      # A message may lie there.
      assert beside != []
      assert Enum.max(beside) < 10_000
    end
  end
end
