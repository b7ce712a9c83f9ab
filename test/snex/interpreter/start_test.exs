defmodule Snex.Interpreter.StartTest do
  # The process of an interpreter while it starts: what it hears, what it answers, and how a start fails.
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  # A start that blocks for ever, as a Python that loads a large model does.
  @script """
  import os, time
  await snex.send(test, os.getpid())
  time.sleep(1_000_000)
  """

  defp blocking(test),
    do: [init_script: {@script, %{"test" => test}}, init_script_timeout: :infinity, stop_timeout: 500]

  # A process that starts an interpreter and waits until it has started.
  defp start_from_other_process(opts) do
    test = self()
    owner = spawn(fn -> send(test, {:start_link, Interpreter.start_link(opts)}) end)
    assert_receive os_pid when is_integer(os_pid), 60_000
    {:links, [inp]} = Process.info(owner, :links)
    {owner, inp, os_pid}
  end

  for reason <- [:kill, :shutdown] do
    test "a start ends, and Python with it, when its parent ends (#{reason}) while the init script blocks" do
      {owner, inp, os_pid} = start_from_other_process(blocking(self()))
      monitor = Process.monitor(inp)
      Process.exit(owner, unquote(reason))
      assert_receive {:DOWN, ^monitor, :process, ^inp, _reason}, 60_000
      refute exists?(os_pid)
    end
  end

  test "a start ends when another process that is linked to it fails" do
    {owner, inp, os_pid} = start_from_other_process(blocking(self()))
    monitor = Process.monitor(inp)

    spawn(fn ->
      Process.link(inp)
      exit(:oops)
    end)

    assert_receive {:DOWN, ^monitor, :process, ^inp, :oops}, 60_000
    refute exists?(os_pid)
    assert_receive {:start_link, {:error, %Error{code: :call_failed, reason: :oops}}}, 60_000
    refute Process.alive?(owner)
  end

  test "during a synchronous start os_pid and info answer, and stop stops it; start_link returns the reason" do
    {_owner, inp, os_pid} = start_from_other_process(blocking(self()))
    assert Interpreter.os_pid(inp) == os_pid
    assert %{status: :starting, os_pid: ^os_pid, environments: 0} = Interpreter.info(inp)
    assert :sys.get_status(inp) |> elem(0) == :status
    assert Interpreter.stop(inp, :shutdown) == :ok
    refute exists?(os_pid)
    assert_receive {:start_link, {:error, %Error{code: :call_failed, reason: :shutdown}}}, 60_000
  end

  test "before Python runs, os_pid is nil, and info has no more than it can know" do
    test = self()

    wrap = fn python, args ->
      send(test, {:waiting, self()})
      receive do: (:go -> {python, args})
    end

    {:ok, inp} = Interpreter.start_link(sync_start?: false, wrap_exec: wrap)
    assert_receive {:waiting, launch}, 60_000
    assert Interpreter.os_pid(inp) == nil
    assert %{status: :starting, python: nil, memory: 0, requests_in_flight: 0} = Interpreter.info(inp, 60_000)
    send(launch, :go)
    assert Snex.pyeval(inp, "return 1", timeout: :infinity) == {:ok, 1}
    assert %{status: :running, python: "3" <> _} = Interpreter.info(inp)
    Interpreter.stop(inp)
  end

  test "a start that fails is an error for its caller, who lives on though it traps no exits, and nothing is logged" do
    log =
      capture_log(fn ->
        for {opts, text} <- [
              {[wrap_exec: fn _python, _args -> raise "no luck" end], "** (RuntimeError) no luck"},
              {[wrap_exec: fn _python, _args -> throw(:ball) end], "** (throw) :ball"},
              {[wrap_exec: fn _python, _args -> exit(:stage) end], "** (exit) :stage"},
              {[wrap_exec: fn _python, _args -> Process.exit(self(), :kill) end], "killed"},
              {[wrap_exec: fn _python, _args -> :nonsense end], "did not return {executable, args}"},
              {[wrap_exec: {NoSuch, :fun, []}], "function NoSuch.fun/2 is undefined"},
              {[cd: "/nowhere/at/all"], ""},
              {[python: "/no/python"], "/no/python"},
              {[init_script: "raise ValueError('never')"], "never"},
              {[name: {:via, Registry, {NoSuch, :x}}], "unknown registry: NoSuch"},
              {[name: {:via, NoSuch, :x}], "NoSuch"}
            ] do
          # What raises says where.
          assert {:error, %Error{} = error} = Interpreter.start_link(opts)
          assert Exception.message(error) =~ text
          if text =~ "no luck", do: assert(Exception.message(error) =~ "start_test.exs:")
        end
      end)

    for text <- ["no luck", "ball", "stage", "nonsense", "never", "NoSuch"], do: refute(log =~ text)
    assert {:links, []} = Process.info(self(), :links)
    assert {:messages, []} = Process.info(self(), :messages)
  end

  @tag :tmp_dir
  test "a file system that refuses is an error of the start", %{tmp_dir: tmp_dir} do
    # Where a folder should be made, there is a file.
    file = Path.join(tmp_dir, "file")
    File.write!(file, "")

    code = """
    toml = ~s([project]\\nname = "x"\\nversion = "0"\\nrequires-python = ">=3.10"\\n)
    {:error, %Snex.Error{} = error} = Snex.Interpreter.start_link(pyproject_toml: toml)
    IO.puts(Exception.message(error))
    """

    {output, 0} =
      System.cmd("elixir", ["-pa", Application.app_dir(:snex, "ebin"), "-e", code],
        env: %{"XDG_CACHE_HOME" => file},
        stderr_to_stdout: true
      )

    assert output =~ "** (File.Error)"
    assert output =~ file
  end

  test "a name that is taken is said as GenServer says it, before anything is started" do
    name = :"taken_#{System.unique_integer([:positive])}"
    inp = start_interpreter!(name: name)
    raising = fn _python, _args -> raise "started" end

    for again <- [name, {:global, name}], {:global, _} = global <- [{:global, name}] do
      if again == global, do: start_interpreter!(name: global)
      assert {:error, {:already_started, pid}} = Interpreter.start_link(name: again, wrap_exec: raising)
      assert pid == GenServer.whereis(again)
    end

    assert Interpreter.os_pid(name) == Interpreter.os_pid(inp)
    assert_raise ArgumentError, ~r/:name cannot be "name"/, fn -> Interpreter.start_link(name: "name") end
  end

  test "a start that takes longer than the option :timeout is ended" do
    opts = [timeout: 3_000] ++ blocking(self())
    {owner, _inp, os_pid} = start_from_other_process(opts)
    assert_receive {:start_link, {:error, :timeout}}, 60_000
    await_gone([os_pid])
    refute Process.alive?(owner)
  end

  test "calls to an interpreter whose registry is not there are errors, and raise nothing" do
    for server <- [{:via, Registry, {NoSuch, :x}}, {:via, NoSuch, :x}, {:global, make_ref()}, :nobody] do
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(server, "return 1")
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.make_env(server)
      assert {:noproc, _} = catch_exit(Interpreter.info(server))
      assert {:noproc, _} = catch_exit(Interpreter.os_pid(server))
    end
  end
end
