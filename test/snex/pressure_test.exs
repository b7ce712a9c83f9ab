defmodule Snex.PressureTest do
  # Not async: it looks at the memory of this VM.
  use Snex.Case

  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  @mib 1024 * 1024
  @high 8 * @mib
  # A list of so many integers that do not fit into two bytes; each takes five in a pickle.
  @integers 200_000
  @message 5 * @integers
  @callers 60
  # What allocators keep, and the schedulers' own frames, one each, on their way into the queue.
  @slack 16 * @mib

  defp resident do
    [_, pages | _] = "/proc/self/statm" |> File.read!() |> String.split()
    String.to_integer(pages) * 4096
  end

  # Callers with a large term each, which send it when they are told to.
  defp callers(inp, timeout) do
    for _ <- 1..@callers do
      Task.async(fn ->
        numbers = Enum.to_list(1_000_000..(1_000_000 + @integers - 1))
        receive do: (:go -> :ok)
        begun = System.monotonic_time(:millisecond)
        result = Snex.pyeval(inp, "return len(numbers)", %{"numbers" => numbers}, timeout: timeout)
        {result, System.monotonic_time(:millisecond) - begun, elem(Process.info(self(), :messages), 1)}
      end)
    end
  end

  defp peak(tasks, inp, peak \\ {0, 0}) do
    {queued, resident} = peak
    peak = {max(queued, Interpreter.info(inp).queued), max(resident, resident())}
    if Enum.any?(tasks, &Process.alive?(&1.pid)), do: peak(tasks, inp, peak), else: peak
  end

  # Stops reading, and returns what makes it go on.
  defp stop_reading(inp, "is stopped") do
    os_pid = to_string(Interpreter.os_pid(inp))
    {_, 0} = System.cmd("kill", ["-STOP", os_pid])
    fn -> {_, 0} = System.cmd("kill", ["-CONT", os_pid]) end
  end

  defp stop_reading(inp, "is in a C call") do
    test = self()
    code = "await snex.send(test, 'now'); sum(range(10 ** 15))"
    spawn_link(fn -> Snex.pyeval(inp, code, %{"test" => test}, timeout: :infinity) end)
    assert_receive "now", 60_000
    nil
  end

  for why <- ["is stopped", "is in a C call"] do
    test "a Python that does not read because it #{why}: callers wait no longer than they want, and memory stays bounded" do
      {_name, python} = hd(pythons())
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link(python: python, stop_timeout: 0, output: :discard)
      tasks = callers(inp, 2_000)
      # Their terms are made.
      eventually(fn -> Enum.all?(tasks, &(Process.info(&1.pid, :status) == {:status, :waiting})) end)
      go_on = stop_reading(inp, unquote(why))
      before = resident()
      for task <- tasks, do: send(task.pid, :go)
      {queued, resident} = peak(tasks, inp)
      results = Task.await_many(tasks, 60_000)

      for {result, _, messages} <- results do
        assert {:error, %Error{code: :response_timeout}} = result
        assert messages == []
      end

      longest = results |> Enum.map(&elem(&1, 1)) |> Enum.max()

      IO.puts(
        "#{@callers} callers with #{div(@message, 1024)} KiB each, Python #{unquote(why)}: at most #{div(queued, 1024)} KiB queued, " <>
          "memory grew by #{div(resident - before, 1024)} KiB, the last gave up after #{longest} ms of 2000"
      )

      # The mark, and what each scheduler had in hand when it was reached.
      assert queued <= @high + (System.schedulers_online() * 2 + 1) * @message
      assert resident - before <= @high + @message + @slack
      assert longest < 20_000

      if go_on do
        go_on.()
        assert Snex.pyeval(inp, "return 1", timeout: 60_000) == {:ok, 1}
        eventually(fn -> Interpreter.info(inp).queued == 0 end)
      end

      assert Interpreter.stop(inp) == :ok
    end
  end

  test "when the VM does not take messages, Python's await snex.send waits, and goes on when it does" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp, %{"test" => self()})

    {:ok, nil} =
      Snex.pyeval(env, """
      import asyncio
      sent = 0
      async def sending():
          global sent
          while True:
              await snex.send(test, bytes(100_000))
              sent += 1
      await snex.send(test, "ready")
      """)

    assert_receive "ready", 60_000
    %{calls: calls} = :sys.get_state(inp)
    # The process that hands messages on; as one that is held up by a slow node.
    :erlang.suspend_process(calls)

    {:ok, nil} = Snex.pyeval(env, "tasks = [asyncio.create_task(sending()) for _ in range(20)]")
    # All have sent one, and wait.
    eventually(fn -> Process.info(calls, :message_queue_len) == {:message_queue_len, 20} end)
    assert Snex.pyeval(env, "await asyncio.sleep(0.1); return sent") == {:ok, 0}
    assert Process.info(calls, :message_queue_len) == {:message_queue_len, 20}

    :erlang.resume_process(calls)
    for _ <- 1..100, do: assert_receive(<<0, _::binary>>, 60_000)
    {:ok, nil} = Snex.pyeval(env, "for task in tasks: task.cancel()")
    Snex.destroy_env(env)
  end

  # An IO device that takes nothing until it is told to.
  defp slow_device do
    spawn_link(fn ->
      receive do: (:go -> :ok)
      device()
    end)
  end

  defp device do
    receive do
      {:io_request, from, ref, _request} -> send(from, {:io_reply, ref, :ok})
    end

    device()
  end

  for {what, flood} <- [
        {"Python", "print('x' * 65536)"},
        {"C code", "os.write(1, b'x' * 65536)"},
        {"a child", "subprocess.run(['head', '-c', '65536', '/dev/zero'])"}
      ] do
    test "a flood of output, by #{what}, waits for a device that takes none; memory stays bounded" do
      {_name, python} = hd(pythons())
      # Python's own prints go where the caller's go, all others to the interpreter's.
      device = slow_device()
      test = self()

      starter =
        spawn_link(fn ->
          Process.group_leader(self(), device)
          {:ok, inp} = Interpreter.start_link(python: python, stop_timeout: 0)
          send(test, inp)
          Process.sleep(:infinity)
        end)

      assert_receive inp when is_pid(inp), 60_000
      os_pid = Interpreter.os_pid(inp)

      spawn_link(fn ->
        Process.group_leader(self(), device)
        code = "import os, subprocess\nwhile True: #{unquote(flood)}"
        Snex.pyeval(inp, code, %{}, timeout: :infinity)
      end)

      # Until it moves no more: the processor time of Python and its children stands still.
      before = resident()
      eventually(fn -> settled?(os_pid) end)
      grown = resident() - before
      IO.puts("a flood by #{unquote(what)}: the VM has grown by #{div(grown, 1024)} KiB")
      assert grown < 32 * @mib

      # It was held up, not given up: when the device takes it, more comes.
      ticks = ticks(os_pid)
      send(device, :go)
      eventually(fn -> ticks(os_pid) > ticks + 5 end)
      Process.unlink(starter)
      Process.unlink(inp)
      assert Interpreter.stop(inp) == :ok
    end
  end

  # Processor time of a process and the children that it has waited for, in ticks.
  defp ticks(os_pid),
    do: os_pid |> ProcessTree.stat() |> Enum.slice(11, 4) |> Enum.map(&String.to_integer/1) |> Enum.sum()

  defp settled?(os_pid) do
    before = ticks(os_pid)
    Process.sleep(300)
    before == ticks(os_pid)
  end
end
