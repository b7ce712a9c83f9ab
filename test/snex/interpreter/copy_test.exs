defmodule Snex.Interpreter.CopyTest do
  # Copies of an interpreter, which a fork makes: what they share with their template, and that it is nothing else.
  use Snex.Case, async: true

  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  setup do
    {:ok,
     template:
       start_interpreter!(init_script: "import os, sys\nx = [1, 2]\ndef double(): return [2 * n for n in x]")}
  end

  # A copy that ends with the test. Not linked to it.
  defp copy!(template, opts \\ []), do: start_interpreter!([{:template, template} | opts])

  # How one ends that is linked to the test, which traps exits.
  defp exit_of(interpreter) do
    assert_receive {:EXIT, ^interpreter, reason}, 60_000
    reason
  end

  # Of a copy that is linked to the test.
  defp fork!(template, opts \\ []) do
    {:ok, copy} = Interpreter.fork(template, opts)
    copy
  end

  describe "a copy" do
    test "begins with the template's root environment, and is isolated", %{template: template} do
      copies = for _ <- 1..4, do: copy!(template)
      for copy <- copies, do: assert(Snex.pyeval(copy, "return double()") == {:ok, [2, 4]})
      assert Snex.pyeval(hd(copies), "x.append(3); return x") == {:ok, [1, 2, 3]}
      for other <- [template | tl(copies)], do: assert(Snex.pyeval(other, "return x") == {:ok, [1, 2]})
      os_pids = for interpreter <- [template | copies], do: Interpreter.os_pid(interpreter)
      assert os_pids == Enum.uniq(os_pids)

      for {copy, os_pid} <- Enum.zip([template | copies], os_pids),
          do: assert(Snex.pyeval(copy, "return os.getpid()") == {:ok, os_pid})
    end

    test "says what its template is", %{template: template} do
      copy = copy!(template)
      info = Interpreter.info(copy)
      assert info.template == template
      assert info.status == :running
      assert info.requests_in_flight == 0
      assert info.memory > 0
      assert Interpreter.info(template).template == nil
    end

    test "has environments, objects and streams of its own", %{template: template} do
      {:ok, env} = Snex.make_env(template, %{"y" => 1})
      copy = copy!(template)
      {:ok, own} = Snex.make_env(copy, %{"y" => 2})
      assert Interpreter.info(copy).environments == 1
      assert Snex.pyeval(own, "return y + x[0]") == {:ok, 3}
      assert Snex.pyeval(env, "return y + x[0]") == {:ok, 2}
      assert Snex.stream(copy, "for n in range(1000): yield n") |> Enum.sum() == 499_500
      {:ok, object} = Snex.pyeval(copy, "return object()", %{}, returns: :object)
      assert Interpreter.info(copy).objects == 1
      assert Interpreter.info(template).objects == 0
      assert {:ok, "<object object" <> _} = Snex.pyeval(copy, "return str(o)", %{"o" => object})
    end

    test "runs an init script of its own, and that of its template is not run again", %{template: template} do
      copy = copy!(template, init_script: {"x.append(y)", %{"y" => 7}})
      assert Snex.pyeval(copy, "return x") == {:ok, [1, 2, 7]}
      assert Snex.pyeval(copy!(template), "return x") == {:ok, [1, 2]}

      assert {:error, %Error{code: :python_runtime_error}} =
               start_supervised_error(template, init_script: "1 / 0")
    end

    test "calls Elixir, and prints where its own output goes", %{template: template} do
      me = self()
      copy = copy!(template, output: me)
      assert Snex.pyeval(copy, "return await Elixir.Enum.sum([1, 2])") == {:ok, 3}
      {:ok, nil} = Snex.pyeval(copy, "await snex.send(me, 'sent')", %{"me" => me})
      assert_receive "sent"
      {:ok, nil} = Snex.pyeval(copy, "print('printed')")
      assert_receive {:snex_output, ^copy, :stdout, "printed\n"}
      {:ok, nil} = Snex.pyeval(copy, "os.system('echo child; echo complaint >&2')")
      assert_receive {:snex_output, ^copy, :stdout, "child\n"}, 60_000
      assert_receive {:snex_output, ^copy, :stderr, "complaint\n"}, 60_000
    end

    test "takes the options of its template that it is not given" do
      template =
        start_interpreter!(allow: [Enum], atoms: :existing, limits: [open_files: 64], max_in_flight: 1)

      code = "return await Elixir.String.length('a')"
      limit = "import resource; return resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
      assert {:error, %Error{code: :python_runtime_error}} = Snex.pyeval(copy!(template), code)
      assert Snex.pyeval(copy!(template, allow: :all), code) == {:ok, 1}
      assert Snex.pyeval(copy!(template), limit) == {:ok, 64}
      assert Snex.pyeval(copy!(template, limits: [open_files: 40, cpu: 1000]), limit) == {:ok, 40}
      assert Snex.pyeval(template, limit) == {:ok, 64}
    end

    test "can be started by a supervisor, under a name, by that of its template" do
      suffix = System.unique_integer([:positive])
      names = [template: :"template_#{suffix}", copy: :"copy_#{suffix}"]

      children = [
        {Interpreter, name: names[:template], init_script: "x = 1"},
        {Interpreter, template: names[:template], name: names[:copy]}
      ]

      start_supervised!(%{
        id: :supervisor,
        type: :supervisor,
        start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]}
      })

      assert Snex.pyeval(names[:copy], "return x") == {:ok, 1}
      Process.exit(Process.whereis(names[:copy]), :kill)
      eventually(fn -> match?({:ok, 1}, Snex.pyeval(names[:copy], "return x")) end)
    end

    test "is cancelled, and interrupted, as any other", %{template: template} do
      copy = copy!(template)

      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(copy, "while True: pass", %{}, timeout: 200)

      assert Snex.pyeval(copy, "return 1", %{}, timeout: 60_000) == {:ok, 1}
      assert Snex.pyeval(template, "return 1") == {:ok, 1}
    end
  end

  describe "the end of" do
    test "a copy is nobody else's", %{template: template} do
      Process.flag(:trap_exit, true)
      [stopped, crashed, killed, owner, left] = for _ <- 1..5, do: fork!(template)
      os_pids = for copy <- [stopped, crashed, killed, owner], do: Interpreter.os_pid(copy)

      assert Interpreter.stop(stopped) == :ok
      refute exists?(hd(os_pids))

      {:error, _} = Snex.pyeval(crashed, "print('last words', file=sys.stderr); os._exit(3)")

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 3}, traceback: ["last words\n"]} =
               exit_of(crashed)

      {_, 0} = System.cmd("kill", ["-SEGV", to_string(Interpreter.os_pid(killed))])
      assert %Error{code: :interpreter_exited, exception: %{signal: "SIGSEGV"}} = exit_of(killed)

      Process.exit(owner, :kill)
      await_gone(os_pids)
      assert Snex.pyeval(left, "return x") == {:ok, [1, 2]}
      assert Snex.pyeval(template, "return x") == {:ok, [1, 2]}
    end

    test "a copy takes what it has started along, and nothing else", %{template: template} do
      Process.flag(:trap_exit, true)

      start = """
      import subprocess
      children = [subprocess.Popen(["sleep", "1000"], start_new_session=new).pid for new in (False, True)]
      read, write = os.pipe()
      if os.fork() == 0:
          os.setsid()
          if os.fork() == 0:
              os.write(write, str(os.getpid()).encode())
              os.execvp("sleep", ["sleep", "1000"])
          os._exit(0)
      os.wait()
      return [*children, int(os.read(read, 20))]
      """

      {:ok, of_template} = Snex.pyeval(template, start)
      copies = for _ <- 1..3, do: fork!(template)
      [of_first, of_second, of_third] = for copy <- copies, do: elem({:ok, _} = Snex.pyeval(copy, start), 1)
      [first, second, third] = copies

      assert Interpreter.stop(first) == :ok
      for pid <- of_first, do: refute(exists?(pid))

      {:error, _} = Snex.pyeval(second, "os._exit(1)")
      assert %Error{code: :interpreter_exited} = exit_of(second)
      for pid <- of_second, do: refute(exists?(pid))

      for pid <- of_third ++ of_template, do: assert(exists?(pid))
      assert Interpreter.stop(third) == :ok
      for pid <- of_third, do: refute(exists?(pid))
      for pid <- of_template, do: assert(exists?(pid))

      stop_supervised_template(template)
      for pid <- of_template, do: refute(exists?(pid))
    end

    test "a copy that has no session of its own yet takes nothing of its template along" do
      # What a fork makes forks the copy, which is halted there: its first step of its own would be that session.
      hook = """
      import os, time
      forks = 0
      def in_child():
          global forks
          forks += 1
          if forks == 2:
              time.sleep(1000)
      os.register_at_fork(after_in_child=in_child)
      """

      template = start_interpreter!(init_script: hook)
      os_pid = Interpreter.os_pid(template)
      copy = copy!(template, sync_start?: false, stop_timeout: 0)
      eventually(fn -> Interpreter.os_pid(copy) != nil end)
      of_copy = Interpreter.os_pid(copy)
      assert of_copy != os_pid and exists?(of_copy)
      assert Interpreter.stop(copy) == :ok
      refute exists?(of_copy)
      assert Snex.pyeval(template, "return os.getpid()", timeout: 60_000) == {:ok, os_pid}
    end

    test "the template is not that of its copies", %{template: template} do
      copies = for _ <- 1..3, do: copy!(template)
      os_pid = Interpreter.os_pid(template)
      {:error, _} = Snex.pyeval(template, "os._exit(3)")
      await_gone([os_pid])
      for copy <- copies, do: assert(Snex.pyeval(copy, "return double()") == {:ok, [2, 4]})
      os_pids = for copy <- copies, do: Interpreter.os_pid(copy)
      for copy <- copies, do: assert(Interpreter.stop(copy) == :ok)
      for pid <- os_pids, do: refute(exists?(pid))
    end

    test "the warden is that of all", %{template: template} do
      Process.flag(:trap_exit, true)
      copies = for _ <- 1..3, do: fork!(template)
      os_pids = for interpreter <- [template | copies], do: Interpreter.os_pid(interpreter)

      {:ok, child} =
        Snex.pyeval(
          hd(copies),
          "import subprocess; return subprocess.Popen(['sleep', '1000'], start_new_session=True).pid"
        )

      warden = ProcessTree.parent(hd(os_pids))
      for os_pid <- os_pids, do: assert(ProcessTree.parent(os_pid) == warden)
      {_, 0} = System.cmd("kill", ["-KILL", to_string(warden)])
      for copy <- copies, do: assert(%Error{code: :interpreter_exited} = exit_of(copy))
      await_gone([child | os_pids])
    end
  end

  describe "there is no copy" do
    test "of a copy", %{template: template} do
      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(copy!(template))
      assert reason =~ "it is a copy itself; fork its template, #{inspect(template)}, instead"
    end

    test "of a template with calls under way", %{template: template} do
      me = self()

      call =
        Task.async(fn ->
          Snex.pyeval(
            template,
            "await snex.send(me, 'in')\nawait Elixir.Process.sleep(:infinity)"
            |> String.replace(":infinity", "1000"),
            %{"me" => me}
          )
        end)

      assert_receive "in", 60_000
      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
      assert reason == "the template has a call under way, which a copy could not continue"
      assert {:ok, _} = Task.await(call)
      assert Snex.pyeval(copy!(template), "return x") == {:ok, [1, 2]}
    end

    test "of a template with threads, which are named, unless they are ignored", %{template: template} do
      {:ok, nil} =
        Snex.pyeval(template, """
        import threading, time
        threading.Thread(target=time.sleep, args=(1000,), name="poller", daemon=True).start()
        """)

      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
      assert reason =~ "threads of its own, which a copy would lack: poller."

      assert Snex.pyeval(
               copy!(template, threads: :ignore),
               "import threading; return threading.active_count()"
             ) == {:ok, 1}
    end

    test "of a template that is gone, is no interpreter or elsewhere", %{template: template} do
      stop_supervised_template(template)
      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
      assert reason =~ "has ended"

      assert {:error, %Error{code: :call_failed, reason: "there is no template :nobody"}} =
               Interpreter.fork(:nobody)

      assert {:error, %Error{reason: reason}} = Interpreter.fork({:nobody, :elsewhere@nowhere})
      assert reason =~ "is on another node"
      assert_raise ArgumentError, ~r/option :template cannot be "x"/, fn -> Interpreter.fork("x") end
      assert_raise ArgumentError, ~r/got: nil/, fn -> Interpreter.fork(nil) end
    end

    test "of a template over standard input and output, or below another program" do
      stdio = start_interpreter!(port_opts: [:use_stdio])
      assert {:error, %Error{reason: reason}} = Interpreter.fork(stdio)
      assert reason =~ ":use_stdio"

      wrapped =
        start_interpreter!(
          wrap_exec: fn python, args -> {"sh", ["-c", ~S("$0" "$@"; exit $?), python | args]} end
        )

      assert {:error, %Error{reason: reason}} = Interpreter.fork(wrapped)
      assert reason =~ ":wrap_exec"
      assert Snex.pyeval(wrapped, "return 1") == {:ok, 1}
    end

    for {name, python} <- pythons(), name =~ "pypy" do
      test "of #{name}" do
        template = start_interpreter!(python: unquote(python))
        assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
        assert reason =~ "it runs PyPy, and a copy needs CPython"
      end
    end

    test "with options that are the template's", %{template: template} do
      for option <- [python: "python3", cd: "/", environment: %{}, port_opts: [], python_path: []] do
        assert_raise ArgumentError, ~r/cannot be given to a copy, which takes it from its template/, fn ->
          Interpreter.fork(template, [option])
        end
      end

      assert_raise ArgumentError, ~r/option :threads needs the option :template/, fn ->
        Interpreter.start_link(threads: :ignore)
      end
    end

    test "if the template is killed while it forks", %{template: template} do
      os_pid = Interpreter.os_pid(template)
      # It does not look at the request before it is killed.
      {_, 0} = System.cmd("kill", ["-STOP", to_string(os_pid)])
      forking = Task.async(fn -> Interpreter.fork(template) end)
      eventually(fn -> waiting_for_fork?(forking.pid) end)
      {_, 0} = System.cmd("kill", ["-KILL", to_string(os_pid)])
      assert {:error, %Error{code: :call_failed, reason: reason}} = Task.await(forking, 60_000)
      assert reason == "the template has ended before it has forked"
    end

    test "if the template does not fork in time, nor later", %{template: template} do
      os_pid = Interpreter.os_pid(template)
      {_, 0} = System.cmd("kill", ["-STOP", to_string(os_pid)])

      assert {:error, %Error{code: :init_script_timeout}} =
               Interpreter.fork(template, init_script_timeout: 300)

      warden = ProcessTree.parent(os_pid)
      {_, 0} = System.cmd("kill", ["-CONT", to_string(os_pid)])
      assert Snex.pyeval(copy!(template), "return x") == {:ok, [1, 2]}
      eventually(fn -> length(ProcessTree.descendants(warden)) == 2 end)
    end

    test "if there is no room for another process", %{template: template} do
      code = "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))"

      if System.cmd("id", ["-u"]) == {"0\n", 0} do
        # The limit does not hold for root: the process that forks says so itself.
        {:ok, nil} =
          Snex.pyeval(
            template,
            "def refuse(): raise BlockingIOError(11, 'Resource temporarily unavailable')\nos.fork = refuse",
            %{}
          )
      else
        {:ok, nil} = Snex.pyeval(template, code)
      end

      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
      assert reason =~ "the template cannot fork: [Errno 11] Resource temporarily unavailable"
      assert Snex.pyeval(template, "return x") == {:ok, [1, 2]}
    end
  end

  test "many copies, started, used and ended by many at a time, leave nothing behind", %{template: template} do
    warden = ProcessTree.parent(Interpreter.os_pid(template))

    1..60
    |> Task.async_stream(
      fn n ->
        Process.flag(:trap_exit, true)
        copy = fork!(template)
        assert Snex.pyeval(copy, "return x + [n]", %{"n" => n}) == {:ok, [1, 2, n]}

        case rem(n, 4) do
          0 -> Interpreter.stop(copy)
          1 -> Snex.pyeval(copy, "os._exit(0)")
          2 -> Process.exit(copy, :kill)
          3 -> System.cmd("kill", ["-KILL", to_string(Interpreter.os_pid(copy))])
        end
      end,
      max_concurrency: 6,
      timeout: 120_000
    )
    |> Stream.run()

    eventually(fn -> ProcessTree.descendants(warden) == [Interpreter.os_pid(template)] end)
    assert Snex.pyeval(template, "return x") == {:ok, [1, 2]}
    assert Snex.pyeval(template, "return len(os.listdir('/proc/self/fd')) < 25") == {:ok, true}
  end

  defp waiting_for_fork?(starter) do
    case Process.info(starter, :links) do
      {:links, links} -> Enum.any?(links, &(is_pid(&1) and &1 != self() and forking?(&1)))
      nil -> false
    end
  end

  # It has asked: its native worker is there.
  defp forking?(pid), do: match?({:ok, _, _, _, _, _, _}, Snex.Native.interpreter_info(pid))

  defp start_supervised_error(template, opts) do
    Process.flag(:trap_exit, true)
    Interpreter.fork(template, opts)
  end

  # The template of the test's setup, which `start_interpreter!/1` has started.
  defp stop_supervised_template(template) do
    Process.unlink(template)
    os_pid = Interpreter.os_pid(template)
    Interpreter.stop(template)
    refute exists?(os_pid)
  end
end
