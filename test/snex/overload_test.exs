defmodule Snex.OverloadTest do
  use Snex.Case, async: true

  describe ":max_in_flight" do
    setup do
      {:ok, inp: start_interpreter!(max_in_flight: 2)}
    end

    defp waiting(inp) do
      test = self()
      code = "await snex.send(test, 'runs'); import asyncio; await asyncio.Event().wait()"
      pid = spawn(fn -> Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity) end)
      assert_receive "runs", 60_000
      pid
    end

    test "refuses more requests at once, of every kind, and says why", %{inp: inp} do
      callers = for _ <- 1..2, do: waiting(inp)
      assert {:error, %Error{code: :overloaded} = error} = Snex.pyeval(inp, "return 1", timeout: :infinity)

      assert Exception.message(error) ==
               "overloaded: 2 requests are under way, as many as :max_in_flight allows"

      assert {:error, %Error{code: :overloaded}} = Snex.make_env(inp, timeout: :infinity)
      Process.exit(hd(callers), :kill)
      eventually(fn -> Snex.pyeval(inp, "return 1") == {:ok, 1} end)
      assert {:ok, _env} = Snex.make_env(inp)
    end

    test "of one says so in the singular" do
      inp = start_interpreter!(max_in_flight: 1)
      waiting(inp)
      assert {:error, error} = Snex.pyeval(inp, "return 1", timeout: :infinity)

      assert Exception.message(error) ==
               "overloaded: 1 request is under way, as many as :max_in_flight allows"
    end

    test "does not concern the answers to what Python calls", %{inp: inp} do
      waiting(inp)
      code = "return [await snex.call('erlang', 'abs', [n]) for n in range(3)]"
      assert Snex.pyeval(inp, code) == {:ok, [0, 1, 2]}
    end

    test "that makes no sense raises ArgumentError" do
      for value <- [0, -1, 1.5, nil, :none] do
        assert_raise ArgumentError, ~r/max_in_flight/, fn -> Interpreter.start_link(max_in_flight: value) end
      end
    end
  end

  describe "a call that has waited too long to be done in time" do
    @describetag :interpreter

    # Each blocks for 200 ms, and there is time for a few of them.
    defp burst(inp, opts) do
      calls = for _ <- 1..30, do: Task.async(fn -> Snex.pyeval(inp, "import time; time.sleep(0.2)", opts) end)

      Enum.frequencies_by(Task.await_many(calls, 60_000), fn
        {:ok, nil} -> :ok
        {:error, error} -> error.code
      end)
    end

    test "is refused instead of being started, and says how long it has waited", %{inp: inp} do
      assert %{ok: _, overloaded: _} = burst(inp, timeout: 2_000)
      test = self()
      blocks = "await snex.send(test, 'blocks'); import time; time.sleep(2)"
      spawn_link(fn -> Snex.pyeval(inp, blocks, %{"test" => test}, timeout: :infinity) end)
      assert_receive "blocks", 60_000
      # What waits for ever, or runs on without its caller, is not refused.
      assert burst(inp, timeout: :infinity) == %{ok: 30}
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "is told from one whose time was not enough from the start, which is begun", %{inp: inp} do
      slow = "import time; time.sleep(pause)"
      for _ <- 1..3, do: {:ok, nil} = Snex.pyeval(inp, slow, %{"pause" => 0.3})

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(inp, slow, %{"pause" => 60}, timeout: 100)

      assert Snex.pyeval(inp, slow, %{"pause" => 0.3}) == {:ok, nil}
    end
  end
end
