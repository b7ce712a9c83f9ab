defmodule Snex.Interpreter.StopEarlyTest do
  use Snex.Case, async: true

  # A start that waits until it is told to go on, as a Python that loads a model does.
  @script """
  import os
  await snex.send(test, os.getpid())
  import asyncio
  await asyncio.Event().wait()
  """

  defp start_unlinked!(opts) do
    {:ok, inp} = Interpreter.start_link([sync_start?: false] ++ opts)
    Process.unlink(inp)
    inp
  end

  defp start_waiting do
    opts = [init_script: {@script, %{"test" => self()}}, init_script_timeout: :infinity]
    inp = start_unlinked!(opts)
    assert_receive os_pid when is_integer(os_pid), 60_000
    {inp, os_pid}
  end

  test "stop during a start that takes its time returns once Python is gone" do
    {inp, os_pid} = start_waiting()
    assert Interpreter.stop(inp) == :ok
    refute exists?(os_pid)
  end

  test "a supervisor stops it as any other" do
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)
    opts = [init_script: {@script, %{"test" => self()}}, sync_start?: false, init_script_timeout: :infinity]
    {:ok, inp} = DynamicSupervisor.start_child(supervisor, {Interpreter, opts})
    assert_receive os_pid when is_integer(os_pid), 60_000
    monitor = Process.monitor(inp)
    assert DynamicSupervisor.terminate_child(supervisor, inp) == :ok
    # Not killed: it came to its end by itself.
    assert_received {:DOWN, ^monitor, :process, ^inp, :shutdown}
    refute exists?(os_pid)
  end

  test "calls that wait for the start hear of the stop" do
    {inp, _os_pid} = start_waiting()
    call = Task.async(fn -> Snex.pyeval(inp, "return 1", timeout: :infinity) end)
    eventually(fn -> length(:sys.get_state(inp).waiting) == 1 end)
    assert Interpreter.stop(inp, :shutdown) == :ok
    assert {:error, %Error{code: :call_failed, reason: :shutdown}} = Task.await(call)
  end

  @doc false
  def wait(test, os_pid) do
    send(test, {:waiting, self(), os_pid})
    receive do: (:go -> nil)
  end

  test "no interpreter outlives a Python that ends when it is ready, before anybody has noticed" do
    ExUnit.CaptureLog.capture_log(fn ->
      script =
        "import os; await snex.call('Elixir.Snex.Interpreter.StopEarlyTest', 'wait', [test, os.getpid()])"

      opts = [init_script: {script, %{"test" => self()}}]
      inp = start_unlinked!(opts)
      monitor = Process.monitor(inp)
      assert_receive {:waiting, caller, os_pid}, 60_000
      launch = :sys.get_state(inp).launch
      :erlang.suspend_process(launch)

      # The init script is done, its answer is there, and nobody has looked at it when Python ends.
      send(caller, :go)
      eventually(fn -> Process.info(launch, :message_queue_len) == {:message_queue_len, 1} end)
      {_, 0} = System.cmd("kill", ["-KILL", to_string(os_pid)])
      eventually(fn -> :sys.get_state(inp).ended != nil end)
      :erlang.resume_process(launch)
      assert_receive {:DOWN, ^monitor, :process, ^inp, %Error{reason: {:exit_status, 137}}}, 60_000
    end)
  end
end
