defmodule Snex.Interpreter.LaunchTest do
  use Snex.Case, async: true

  import Snex.Sigils

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  defp tmp_path(name) do
    path = Path.join(System.tmp_dir!(), "snex-#{name}-#{System.pid()}-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(path) end)
    path
  end

  # What would be run, and then is.
  defp telling do
    test = self()

    fn python, args ->
      send(test, {:python, python, args})
      {python, args}
    end
  end

  describe "start_link" do
    test "runs Python as a process of its own, in a session of its own" do
      inp = start_interpreter!()
      {:ok, {pid, sid}} = Snex.pyeval(inp, "import os; return os.getpid(), os.getsid(0)")
      assert pid == sid
      assert Interpreter.os_pid(inp) == pid
    end

    test "fails when the program is no interpreter, and says what it said" do
      assert {:error, error} =
               Interpreter.start_link(wrap_exec: fn _, _ -> {"sh", ["-c", "echo no luck >&2; exit 9"]} end)

      assert %Error{code: :interpreter_exited, reason: {:exit_status, 9}, traceback: ["no luck\n"]} = error
      assert Exception.message(error) =~ "Python exited with status 9\n\nno luck"
    end

    test "fails when garbage comes instead of frames, and quotes it" do
      wrap = fn _python, _args -> {"sh", ["-c", "echo this is no frame >&4; sleep 1000"]} end
      assert {:error, %Error{code: :internal_error, reason: reason}} = Interpreter.start_link(wrap_exec: wrap)
      assert reason == ~S(expected a frame, got "this is no frame\n")
    end
  end

  describe "the option python" do
    test "is the name of a command, or a path" do
      path = System.find_executable("python3")

      for python <- ["python3", path] do
        start_interpreter!(python: python, wrap_exec: telling())
        assert_received {:python, ^path, [_start | ["3", "4", "5", "6"]]}
      end
    end

    test "is by default the first of python, python3 that is found" do
      found = System.find_executable("python") || System.find_executable("python3")
      start_interpreter!(wrap_exec: telling())
      assert_received {:python, ^found, _}

      # Both of them, then one: a folder of each kind is the whole PATH of another VM.
      for names <- [["python", "python3"], ["python3"]] do
        folder = tmp_path("path")
        File.mkdir_p!(folder)
        for name <- names, do: File.ln_s!(System.find_executable("true"), Path.join(folder, name))

        code = """
        System.put_env("PATH", #{inspect(folder)})
        wrap = fn python, _args -> IO.puts("found: " <> python); {python, []} end
        Process.flag(:trap_exit, true)
        {:error, _} = Snex.Interpreter.start_link(wrap_exec: wrap)
        """

        ebin = Application.app_dir(:snex, "ebin")
        {output, 0} = System.cmd("elixir", ["-pa", ebin, "-e", code], stderr_to_stdout: true)
        assert output =~ "found: #{folder}/#{hd(names)}\n"
      end
    end

    test "that is not there makes the start fail, and is named" do
      for python <- ["/no/python", "no-such-python"] do
        assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.start_link(python: python)
        assert reason =~ python
      end
    end
  end

  describe "a program" do
    setup do
      folder = Path.join(Mix.Project.build_path(), Path.basename(tmp_path("program")))
      on_exit(fn -> File.rm_rf!(folder) end)
      File.mkdir_p!(Path.join(folder, "bin"))
      {_name, python} = hd(pythons())
      File.ln_s!(python, Path.join(folder, "bin/python"))
      {:ok, folder: folder, relative: "./" <> Path.relative_to_cwd(folder)}
    end

    test "with a relative path is looked for from the working directory of the VM, whatever :cd says",
         context do
      python = Path.join(context.relative, "bin/python")
      refute Path.type(python) == :absolute
      inp = start_interpreter!(python: python, cd: "/")
      assert Snex.pyeval(inp, "import os; return os.getcwd()") == {:ok, "/"}

      inp = start_interpreter!(wrap_exec: fn _python, args -> {python, args} end, cd: context.folder)
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    test "that is not there is named with its whole path", context do
      assert {:error, %Error{code: :call_failed, reason: reason}} =
               Interpreter.start_link(python: Path.join(context.relative, "bin/pyhton"))

      assert reason =~ Path.join(context.folder, "bin/pyhton")

      assert {:error, %Error{code: :call_failed}} = Interpreter.start_link(python: context.folder)
      assert {:error, %Error{code: :call_failed}} = Interpreter.start_link(python: <<"python", 0xFF>>)
    end

    test "may have a path that is no text", context do
      folder = context.folder <> "/" <> <<"caf", 0xE9, " ", 0xFF>>
      File.mkdir_p!(folder)
      File.ln_s!(Path.join(context.folder, "bin/python"), folder <> "/python")
      inp = start_interpreter!(python: folder <> "/python", cd: folder)
      assert Snex.pyeval(inp, "import os; return os.getcwdb()") == {:ok, folder}
    end
  end

  describe "files in the working directory" do
    test "are never taken for modules of ours; code finds them" do
      folder = tmp_path("modules")
      File.mkdir_p!(Path.join(folder, "snex"))

      for name <- ~w[struct asyncio runpy snex/__init__],
          do: File.write!(Path.join(folder, name <> ".py"), "raise RuntimeError")

      File.write!(Path.join(folder, "users_own.py"), "answer = 42")

      for opts <- [[], [port_opts: [:use_stdio]]] do
        inp = start_interpreter!([cd: folder] ++ opts)

        assert Snex.pyeval(inp, "import struct, users_own; return struct.calcsize('<Q'), users_own.answer") ==
                 {:ok, {8, 42}}
      end
    end
  end

  describe "the option wrap_exec" do
    test "is fun(python, args), and returns {executable, args}" do
      wrap = fn python, args -> {"env", ["WRAPPED=yes", python | args]} end
      inp = start_interpreter!(wrap_exec: wrap)
      assert Snex.pyeval(inp, "import os; return os.environ['WRAPPED']") == {:ok, "yes"}
    end

    test "is {m, f, a}, called with python and args at the end, and returns {executable, args}" do
      inp = start_interpreter!(wrap_exec: {__MODULE__, :wrap, ["more", "less"]})
      assert Snex.pyeval(inp, "import os; return os.environ['WRAPPED']") == {:ok, "more or less"}
    end

    def wrap(one, other, python, args), do: {"env", ["WRAPPED=#{one} or #{other}", python | args]}

    test "that returns a program that is not there makes the start fail, which names it" do
      assert {:error, %Error{code: :call_failed, reason: reason}} =
               Interpreter.start_link(wrap_exec: fn _, _ -> {"/no/program", []} end)

      for {wrap, problem} <- [
            {fn _, _ -> raise "no luck" end, "** (RuntimeError) no luck"},
            {{:erlang, :throw, []},
             "** (UndefinedFunctionError) function :erlang.throw/2 is undefined or private"}
          ] do
        assert {:error, %Error{code: :call_failed} = error} = Interpreter.start_link(wrap_exec: wrap)
        assert Exception.message(error) =~ "the function in :wrap_exec failed: " <> problem
      end

      assert reason =~ "/no/program"
    end
  end

  describe "the options cd and environment" do
    test "are the working directory and more variables" do
      inp = start_interpreter!(cd: "/", environment: %{"ANIMAL" => "snake"})
      code = "import os; return os.getcwd(), os.environ['ANIMAL'], os.environ['HOME']"
      assert Snex.pyeval(inp, code) == {:ok, {"/", "snake", System.fetch_env!("HOME")}}
    end

    # What the program itself is given: Python may add to that, as for its locale.
    defp given_environment(opts) do
      path = tmp_path("environ")
      script = "cat /proc/self/environ >'#{path}'; exec \"$0\" \"$@\""
      # The shell is the same for all; it adds nothing before it has read its own environment.
      wrap = fn python, args -> {"env", ["sh", "-c", script, python | args]} end
      inp = start_interpreter!([wrap_exec: wrap] ++ opts)
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}

      for entry <- path |> File.read!() |> String.split("\0", trim: true),
          do: List.to_tuple(String.split(entry, "=", parts: 2))
    end

    test "withhold the variables of the VM with {:only, map}; Snex adds PYTHONPATH and SNEX_TREE" do
      own = Application.app_dir(:snex, "priv/python")
      path = System.fetch_env!("PATH")

      for {only, pythonpath} <- [
            {%{"PATH" => path}, own},
            {%{"PATH" => path, "ANIMAL" => "snake"}, own},
            {%{"PATH" => path, "PYTHONPATH" => "/somewhere/else"}, own <> ":/somewhere/else"}
          ] do
        given = Map.new(given_environment(environment: {:only, only}))
        assert {mark, given} = Map.pop!(given, "SNEX_TREE")
        assert mark =~ ~r/^\d+-\d+-\d+$/
        # The shell's own.
        assert Map.drop(given, ["PWD", "OLDPWD", "SHLVL", "_"]) == Map.put(only, "PYTHONPATH", pythonpath)
      end

      assert Map.new(given_environment([]))["HOME"] == System.fetch_env!("HOME")
    end

    test "start a Python without any variable of the VM, nor of anybody" do
      {_name, python} = hd(pythons())
      # What is on PATH may be a script that sets variables of its own.
      {executable, 0} = System.cmd(python, ["-c", "import sys; print(sys.executable)"])
      inp = start_interpreter!(python: String.trim(executable), environment: {:only, %{}})
      code = "import os; return sorted(os.environ)"
      assert {:ok, names} = Snex.pyeval(inp, code)
      # Python sets the last one itself when it finds no locale.
      assert names -- ["LC_CTYPE"] == ["PYTHONPATH", "SNEX_TREE"]
    end

    test "keep the VM's variables from the warden too, whose environment Python may read" do
      inp = start_interpreter!()
      code = "import os; return open(f'/proc/{os.getppid()}/environ').read()"
      assert Snex.pyeval(inp, code) == {:ok, ""}
    end

    test "extend PYTHONPATH, and do not replace it" do
      inp = start_interpreter!(environment: %{"PYTHONPATH" => "/somewhere/else"})
      {:ok, path} = Snex.pyeval(inp, "import sys; return sys.path")
      assert "/somewhere/else" in path
      assert Enum.any?(path, &String.ends_with?(&1, "snex/priv/python"))
    end
  end

  describe "the option init_script" do
    test "is a string, a Snex.Code, or either with vars; its environment is the root that all others copy" do
      for {script, expected} <- [
            {"x = 1", 1},
            {~p"x = 2", 2},
            {{"x = y + 1", %{"y" => 2}}, 3},
            {{~p"x = y + 2", %{"y" => 2}}, 4}
          ] do
        inp = start_interpreter!(init_script: script)
        assert Snex.pyeval(inp, "return x") == {:ok, expected}
        {:ok, env} = Snex.make_env(inp)
        assert Snex.pyeval(env, "return x") == {:ok, expected}
      end
    end

    test "that fails makes the start fail with its error, which points to its line" do
      line = __ENV__.line + 1
      script = ~p"raise RuntimeError('not today')"

      assert {:error, %Error{code: :python_runtime_error, reason: "not today"} = error} =
               Interpreter.start_link(init_script: script)

      assert Enum.join(error.traceback) =~ ~s(File "#{__ENV__.file}", line #{line}, in <module>)
    end

    test "that takes longer than init_script_timeout makes the start fail, and leaves no Python behind" do
      path = tmp_path("pid")
      script = "import os, time\nopen(path, 'w').write(str(os.getpid()))\ntime.sleep(1000)"

      assert {:error, %Error{code: :init_script_timeout}} =
               Interpreter.start_link(
                 init_script: {script, %{"path" => path}},
                 init_script_timeout: 2_000,
                 stop_timeout: 0
               )

      refute exists?(File.read!(path))
    end
  end

  describe "the option sync_start?" do
    # Ends when somebody writes to the pipe with that name.
    @waiting_script "await snex.send(test, 'starting')\nready = open(path).read()"

    defp pipe do
      path = tmp_path("pipe")
      {_, 0} = System.cmd("mkfifo", [path])
      path
    end

    test "true, the default: start_link returns when the init script has run" do
      path = pipe()
      test = self()

      task =
        Task.async(fn ->
          Process.flag(:trap_exit, true)

          {:ok, inp} =
            Interpreter.start_link(init_script: {@waiting_script, %{"path" => path, "test" => test}})

          send(test, "started")
          result = Snex.pyeval(inp, "return ready")
          Interpreter.stop(inp)
          result
        end)

      assert_receive "starting", 60_000
      refute_received "started"
      File.write!(path, "yes")
      assert Task.await(task, :infinity) == {:ok, "yes"}
    end

    test "false: start_link returns at once, and calls wait for the start" do
      path = pipe()
      script = {@waiting_script, %{"path" => path, "test" => self()}}
      inp = start_interpreter!(sync_start?: false, init_script: script)
      call = Task.async(fn -> Snex.pyeval(inp, "return ready", timeout: :infinity) end)
      assert_receive "starting", 60_000
      assert Task.yield(call, 0) == nil
      File.write!(path, "yes")
      assert Task.await(call, :infinity) == {:ok, "yes"}
    end

    test "false: a start that fails makes the process exit with the error, and fails the calls that wait" do
      for {opts, code} <- [
            {[init_script: "raise ValueError('later')"], :python_runtime_error},
            {[init_script: "import time; time.sleep(1000)", init_script_timeout: 100, stop_timeout: 0],
             :init_script_timeout},
            {[python: "/no/python"], :call_failed},
            {[wrap_exec: fn _, _ -> {"false", []} end], :interpreter_exited}
          ] do
        {:ok, inp} = Interpreter.start_link([sync_start?: false] ++ opts)
        assert {:error, %Error{code: :call_failed}} = Snex.pyeval(inp, "return 1", timeout: :infinity)
        assert_receive {:EXIT, ^inp, %Error{code: ^code}}, 60_000
      end
    end
  end

  describe "port_opts: [:use_stdio]" do
    # Like ssh or docker: the standard streams are all that passes through.
    @wraps %{
      "Python alone" => ["exec 3>&- 4>&- 5>&- 6>&-; exec \"$0\" \"$@\""],
      "env" => ["exec 3>&- 4>&- 5>&- 6>&-; exec env \"$0\" \"$@\""],
      "sh -c" => ["exec 3>&- 4>&- 5>&- 6>&-; \"$0\" \"$@\"; exit $?"],
      "pipes on both sides" => ["exec 3>&- 4>&- 5>&- 6>&-; cat | \"$0\" \"$@\" | cat"]
    }

    for {what, [script]} <- @wraps do
      test "talks over standard input and output, with #{what}; prints and large values do no harm" do
        wrap = fn python, args -> {"sh", ["-c", unquote(script), python | args]} end
        inp = start_interpreter!(port_opts: [:use_stdio], wrap_exec: wrap, output: self())

        code = """
        import os, subprocess, sys
        print('not a frame', flush=True)
        os.write(1, b'nor this')
        sys.__stdout__.write('nor that')
        subprocess.run(['echo', 'nor a child of it'])
        return 1
        """

        assert Snex.pyeval(inp, code) == {:ok, 1}
        large = String.duplicate("x", 1_000_000)
        assert Snex.pyeval(inp, "return x", %{"x" => large}) == {:ok, large}
        assert Snex.pyeval(inp, "return await Elixir.Enum.sum([1, 2])") == {:ok, 3}
        assert {:error, %Error{exception: %{type: "EOFError"}}} = Snex.pyeval(inp, "input()")
        assert Interpreter.stop(inp) == :ok
      end
    end
  end
end
