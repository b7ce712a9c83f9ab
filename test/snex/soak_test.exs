defmodule Snex.SoakTest do
  # Not async: it looks at the memory of this VM.
  use Snex.Case

  @moduletag :long
  @moduletag timeout: 1_800_000

  @callers 50
  @threads 8
  # Both sides together make 200,000 requests, in quarters.
  @calls_per_quarter 750
  @thread_calls_per_quarter 1_563

  @init_script """
  import asyncio
  import threading

  class Expected(Exception):
      pass

  def adding(add, n):
      return [add(n), add(n)]

  def calling(thread, first, count, failures):
      # On each thread: every answer has to be that of its own call.
      for i in range(first, first + count):
          number = thread * 1_000_000 + i
          if snex.call_sync("Elixir.Snex.SoakTest", "mirror", [number]) != {"number": number}:
              failures.append(number)
  """

  @doc false
  def mirror(number), do: %{"number" => number}

  test "200,000 requests of 50 processes and 8 threads get their own answers, and memory stays flat" do
    inp = start_interpreter!(init_script: @init_script)

    memory =
      for quarter <- 0..3 do
        callers = for caller <- 1..@callers, do: Task.async(fn -> soak(inp, caller, quarter) end)
        threads = Task.async(fn -> threads(inp, quarter) end)
        Task.await_many([threads | callers], :infinity)
        memory(inp)
      end

    info = Interpreter.info(inp)
    assert %{requests_in_flight: 0, queued: 0} = info
    eventually(fn -> match?(%{environments: 0, objects: 0}, Interpreter.info(inp)) end)

    for whose <- [:vm, :python] do
      first = hd(memory)[whose]
      last = List.last(memory)[whose]

      IO.puts(
        "#{whose}: #{div(first, 1024)} KiB after the first quarter, #{div(last, 1024)} KiB after the last"
      )

      assert last < first * 1.1 + 4 * 1024 * 1024
    end
  end

  defp soak(inp, caller, quarter) do
    env = Snex.make_env!(inp, %{"caller" => caller})
    first = quarter * @calls_per_quarter
    for n <- first..(first + @calls_per_quarter - 1), do: request(rem(n, 11), inp, env, caller, n)
    Snex.destroy_env(env)
    refute_received _
  end

  # Eleven sorts of requests, in turn.
  defp request(0, _inp, env, caller, n),
    do: assert(pyeval(env, "return caller, n", %{"n" => n}) == {:ok, {caller, n}})

  defp request(1, _inp, env, caller, n) do
    code = "await asyncio.sleep(0); return [caller, m]"
    assert pyeval(env, code, %{"m" => n}) == {:ok, [caller, n]}
  end

  defp request(2, _inp, env, caller, n) do
    code = "return await snex.call('Elixir.Snex.SoakTest', 'mirror', [k + caller])"
    assert pyeval(env, code, %{"k" => n}) == {:ok, %{"number" => n + caller}}
  end

  defp request(3, inp, _env, caller, n) do
    assert {:error, %Error{reason: reason}} =
             pyeval(inp, "raise Expected(n)", %{"n" => caller * 1_000_000 + n})

    assert reason == "#{caller * 1_000_000 + n}"
  end

  defp request(4, _inp, env, caller, n) do
    copy = Snex.make_env!(%{"copied" => n}, from: env)
    assert pyeval(copy, "return caller, copied") == {:ok, {caller, n}}
  end

  defp request(5, inp, _env, caller, n) do
    list = Enum.to_list(caller..(caller + rem(n, 500)))
    assert pyeval(inp, "return sum(numbers)", %{"numbers" => list}) == {:ok, Enum.sum(list)}
  end

  defp request(6, _inp, env, caller, n) do
    code = "await snex.send(to, (caller, j)); return j"
    assert pyeval(env, code, %{"to" => self(), "j" => n}) == {:ok, n}
    assert_received {^caller, ^n}
  end

  defp request(7, inp, _env, _caller, n) do
    binary = :binary.copy(<<rem(n, 256)>>, 1 + rem(n * 37, 40_000))
    assert pyeval(inp, "return b", %{"b" => Serde.binary(binary)}) == {:ok, binary}
  end

  defp request(8, inp, _env, caller, n),
    do:
      assert(
        Snex.call(inp, "divmod", [n, caller], timeout: 600_000) == {:ok, {div(n, caller), rem(n, caller)}}
      )

  defp request(9, inp, env, caller, n) do
    opts = [timeout: 600_000]
    {:ok, object} = Snex.call(inp, "types.SimpleNamespace", [], [kwargs: [n: n], returns: :object] ++ opts)
    assert Snex.Object.get(object, "n", opts) == {:ok, n}

    assert pyeval(env, "return caller, one.n, one is [two][0]", %{"one" => object, "two" => object}) ==
             {:ok, {caller, n, true}}

    if rem(n, 2) == 0, do: Snex.Object.release(object)
  end

  defp request(10, inp, _env, caller, n) do
    add = Serde.callback(&(&1 + caller))
    assert Snex.call(inp, "adding", [add, n], timeout: 600_000) == {:ok, [n + caller, n + caller]}
  end

  defp threads(inp, quarter) do
    code = """
    failures = []
    threads = [
        threading.Thread(target=calling, args=(thread, first, count, failures)) for thread in range(threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    return failures
    """

    count = @thread_calls_per_quarter
    vars = %{"threads" => @threads, "first" => quarter * count, "count" => count}
    assert Snex.pyeval(inp, code, vars, timeout: :infinity) == {:ok, []}
  end

  defp pyeval(where, code, vars \\ %{}), do: Snex.pyeval(where, code, vars, timeout: 600_000)

  defp memory(inp) do
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    {:ok, _} = Snex.pyeval(inp, "import gc; return gc.collect()")
    [_, resident | _] = "/proc/self/statm" |> File.read!() |> String.split() |> Enum.map(&String.to_integer/1)
    %{vm: resident * 4096, python: Interpreter.info(inp).memory}
  end
end
