defmodule Snex.Interpreter.OptionsTest do
  use Snex.Case, async: true

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  test "each option has the default that is documented" do
    assert {[], options} = Snex.Interpreter.Options.split!([])

    assert Map.take(options, [:init_script_timeout, :sync_start?, :eager_polyfill?, :stop_timeout]) == %{
             init_script_timeout: 60_000,
             sync_start?: true,
             eager_polyfill?: true,
             stop_timeout: 5_000
           }

    assert options.port_opts.busy_limits_port == {4 * 1024 * 1024, 8 * 1024 * 1024}
    assert options.port_opts.use_stdio == false
    assert options.on_stuck == {:restart, 30_000}
    assert options.atoms == :create
    assert options.output == %{stdout: :group_leader, stderr: :group_leader}
    assert options.limits == {nil, nil, nil, nil, 2 * 1024 * 1024 * 1024}
  end

  test "an option that is not known raises ArgumentError, which names it and the nearest known one" do
    for {wrong, nearest} <- [
          pyton: :python,
          wrap_exe: :wrap_exec,
          init_scirpt: :init_script,
          sync_strt: :sync_start,
          hibernate_aftr: :hibernate_after,
          nam: :name
        ] do
      assert_raise ArgumentError, "unknown option #{inspect(wrong)}, did you mean #{inspect(nearest)}?", fn ->
        Interpreter.start_link([{wrong, 1}])
      end
    end

    assert_raise ArgumentError, "unknown option :use_stdout in :port_opts, did you mean :use_stdio?", fn ->
      Interpreter.start_link(port_opts: [:use_stdout])
    end

    assert_raise ArgumentError, ~r/unknown option :zzz; known are :allow,/, fn ->
      Interpreter.start_link(zzz: 1)
    end
  end

  test "an option with a value that it cannot have raises ArgumentError, which names both" do
    ms = "milliseconds, from 0 to 4294967295"

    for {name, value, expected} <- [
          {:python, 17, "a path or a name as a string"},
          {:wrap_exec, fn -> :ok end, "a function with two arguments or {module, function, args}"},
          {:cd, :home, "a path"},
          {:cd, "", "a path"},
          {:cd, "/tmp\0", "a path"},
          {:python, "python\0", "a path or a name as a string"},
          {:python_path, [1], nil},
          {:init_script_timeout, -1, ms <> ", or :infinity"},
          {:sync_start?, nil, "true or false"},
          {:sync_start, 1, "true or false"},
          {:eager_polyfill?, 1, "true or false"},
          {:port_opts, :use_stdio, "a keyword list"},
          {:stop_timeout, :never, ms},
          {:stop_timeout, 2 ** 70, ms},
          {:stop_timeout, 2 ** 32, ms},
          {:init_script_timeout, 2 ** 32, ms <> ", or :infinity"},
          {:hibernate_after, 2 ** 32, ms <> ", or :infinity"},
          {:timeout, 2 ** 32, ms <> ", or :infinity"},
          {:on_stuck, :wait, ":report, :restart or {:restart, milliseconds}"},
          {:on_stuck, {:restart, -1}, ":report, :restart or {:restart, milliseconds}"},
          {:allow, :some, ":all, :none, or a list of Module, {Module, fun} and {Module, fun, arity}"},
          {:atoms, :safe, ":create or :existing"},
          {:groups, :dev, "a list of names"},
          {:pyproject_toml, 1, "a string"}
        ] do
      shown = if is_list(value), do: hd(value), else: value

      message =
        "option #{inspect(name)} cannot be #{inspect(shown)}: expected #{expected || "a folder, {application, folder}, or a list of these"}"

      assert_raise ArgumentError, message, fn -> Interpreter.start_link([{name, value}]) end
    end

    assert_raise ArgumentError,
                 ~r/option :environment has a value for "A" that is neither a string, nil, nor a function/,
                 fn ->
                   Interpreter.start_link(environment: %{"A" => 1})
                 end

    assert_raise ArgumentError, "option :environment has the name :a, which has to be a string", fn ->
      Interpreter.start_link(environment: {:only, %{a: "1"}})
    end

    for wrong <- [[], {:only, [{"A", "1"}]}, {:without, %{}}, {:only, nil}] do
      message = "option :environment has to be a map of variables or {:only, map}"
      assert_raise ArgumentError, message, fn -> Interpreter.start_link(environment: wrong) end
    end

    for name <- ["", "A=B", "A\0"], variables = %{name => "1"}, option <- [variables, {:only, variables}] do
      message = "option :environment has the name #{inspect(name)}, which no environment variable can have"
      assert_raise ArgumentError, message, fn -> Interpreter.start_link(environment: option) end
    end

    assert_raise ArgumentError, "option :environment has a NUL in the value of \"A\"", fn ->
      Interpreter.start_link(environment: %{"A" => "1\0"})
    end

    for {wrong, message} <- [
          {:x, "expected code as a string or a Snex.Code, got: :x"},
          {{:x, %{}}, "expected code as a string or a Snex.Code, got: :x"},
          {%Snex.Code{src: 1}, "expected the :src of a Snex.Code to be a string or iodata, got: 1"},
          {{"x", 1}, "expected variables as a map with string keys, got: 1"},
          {{"x", [a: 1]},
           "expected variables as a map with string keys, got a keyword list; write %{\"a\" => ...}"},
          {{"x", %{a: 1}}, "names of variables have to be strings in UTF-8, got: :a; write %{\"a\" => ...}"}
        ] do
      assert_raise ArgumentError, "option :init_script cannot be used: " <> message, fn ->
        Interpreter.start_link(init_script: wrong)
      end
    end

    for wrong <- [{2, 1}, {0, 2 ** 64}, {-1, 1}] do
      assert_raise ArgumentError,
                   ~r/option :busy_limits_port of :port_opts cannot be .*expected {low, high}/,
                   fn ->
                     Interpreter.start_link(port_opts: [busy_limits_port: wrong])
                   end
    end

    assert_raise ArgumentError, ~r/option :allow cannot be "String": expected :all/, fn ->
      Interpreter.start_link(allow: ["String"])
    end

    assert_raise ArgumentError, ~r/a keyword list of options, got: :python/, fn ->
      Interpreter.start_link(:python)
    end
  end

  test "the option label is the process's label" do
    inp = start_interpreter!(label: {:my, "label"})
    assert {:dictionary, dictionary} = Process.info(inp, :dictionary)
    assert dictionary[:"$process_label"] == {:my, "label"}
  end

  test "the option hibernate_after, as others of GenServer, has the idle process hibernate; it still works" do
    inp = start_interpreter!(hibernate_after: 1)

    # As of OTP 28, or until then.
    asleep = [{:gen_server, :loop_hibernate, 4}, {:erlang, :hibernate, 3}]
    eventually(fn -> elem(Process.info(inp, :current_function), 1) in asleep end)

    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    assert is_integer(Interpreter.os_pid(inp))
  end

  test "the option encoding_opts holds for calls that do not say otherwise, and for what Elixir returns to Python" do
    inp = start_interpreter!(encoding_opts: [binary_as: :bytes, set_as: :frozenset, atom_as: :distinct_atom])
    code = "return type(b).__name__, type(s).__name__, type(a).__name__"
    vars = %{"b" => "x", "s" => MapSet.new(), "a" => :a}
    assert Snex.pyeval(inp, code, vars) == {:ok, {"bytes", "frozenset", "DistinctAtom"}}

    assert Snex.pyeval(inp, code, vars, encoding_opts: [binary_as: :str]) ==
             {:ok, {"str", "frozenset", "DistinctAtom"}}

    {:ok, env} = Snex.make_env(inp, vars, encoding_opts: [set_as: :set])
    assert Snex.pyeval(env, code) == {:ok, {"bytes", "set", "DistinctAtom"}}
    assert Snex.pyeval(inp, "return type(await Elixir.String.upcase('a')).__name__") == {:ok, "bytes"}
  end

  describe "the option port_opts" do
    # More bytes than are queued of one value of 1,500,000, and fewer than of two, some of which may be in the pipe.
    @one 1_800_000

    test "busy_limits_port: between which marks of waiting bytes callers wait, or :disabled" do
      # Python blocks until a byte comes through a pipe, and takes nothing meanwhile.
      for {opts, waits?} <- [
            {[busy_limits_port: {1_000, 2_000}], true},
            {[], false},
            {[busy_limits_port: :disabled], false}
          ] do
        inp = start_interpreter!(port_opts: opts)
        {:ok, env} = Snex.make_env(inp)

        {:ok, {writer, signs}} =
          Snex.pyeval(env, "import os; r, w = os.pipe(); signs, sign = os.pipe(); return w, signs")

        # Nothing runs between the sign and the wait.
        blocked =
          Task.async(fn -> Snex.pyeval(env, "os.write(sign, b'x'); os.read(r, 1)", timeout: :infinity) end)

        {:ok, file} = :file.open("/proc/#{Interpreter.os_pid(inp)}/fd/#{signs}", [:raw, :read, :binary])
        assert :file.read(file, 1) == {:ok, "x"}
        call = fn -> Snex.pyeval(inp, %{"x" => String.duplicate("x", 1_500_000)}, timeout: :infinity) end
        first = Task.async(call)
        eventually(fn -> Interpreter.info(inp).queued > 2_000 end)
        second = Task.async(call)

        if waits?,
          do: eventually(fn -> Interpreter.info(inp).queued > 2_000 and waits_for_room?(second.pid) end),
          else: eventually(fn -> Interpreter.info(inp).queued > @one end)

        assert Interpreter.info(inp).queued < @one == waits?
        File.write!("/proc/#{Interpreter.os_pid(inp)}/fd/#{writer}", "x")
        for task <- [blocked, first, second], do: assert(Task.await(task, :infinity) == {:ok, nil})
      end
    end

    defp waits_for_room?(pid) do
      match?(
        [status: :waiting, current_function: {Snex.Request, :wait, _arity}],
        Process.info(pid, [:status, :current_function])
      )
    end

    test "parallelism and busy_limits_msgq are accepted, and have no effect" do
      for opts <- [[:parallelism], [parallelism: true], [parallelism: false], [busy_limits_msgq: {1, 2}]] do
        assert Snex.pyeval(start_interpreter!(port_opts: opts), "return 1") == {:ok, 1}
      end
    end
  end

  describe "the option eager_polyfill?" do
    # A chain of callbacks, each scheduled by the one before, and a descriptor that is ready from the beginning.
    @chain """
    import asyncio, os
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    os.write(writer, b"x")
    seen = []
    done = asyncio.Event()

    def polled():
        loop.remove_reader(reader)
        seen.append("polled")
        done.set()

    def chain(n):
        seen.append(n)
        if n:
            loop.call_soon(chain, n - 1)

    loop.add_reader(reader, polled)
    loop.call_soon(chain, 10)
    await done.wait()
    return seen
    """

    test "true, the default: callbacks that are ready run before Python polls again" do
      for opts <- [[], [eager_polyfill?: true]] do
        assert Snex.pyeval(start_interpreter!(opts), @chain) == {:ok, Enum.to_list(10..0//-1) ++ ["polled"]}
      end
    end

    test "false: Python polls between them, as asyncio does" do
      inp = start_interpreter!(eager_polyfill?: false)
      assert {:ok, seen} = Snex.pyeval(inp, @chain)
      assert Enum.find_index(seen, &(&1 == "polled")) < 10
    end
  end

  describe "the option stop_timeout" do
    defp start_child!(inp, script) do
      code = """
      import subprocess
      child = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
      child.stdout.readline()
      return child.pid
      """

      Snex.pyeval!(inp, code, %{"script" => script}, timeout: 60_000)
    end

    test "is the grace after SIGTERM: what needs less of it comes to its end" do
      path = Path.join(System.tmp_dir!(), "snex-grace-#{System.pid()}-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm(path) end)
      {:ok, inp} = Interpreter.start_link(stop_timeout: 60_000)

      start_child!(
        inp,
        "trap 'sleep 0.3; echo done >#{path}; exit' TERM; echo ready; while :; do sleep 0.1; done"
      )

      Interpreter.stop(inp)
      assert File.read!(path) == "done\n"
    end

    test "over, SIGKILL ends what has not heard SIGTERM" do
      for stop_timeout <- [0, 200] do
        {:ok, inp} = Interpreter.start_link(stop_timeout: stop_timeout)
        child = start_child!(inp, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
        Interpreter.stop(inp)
        refute exists?(child)
      end
    end

    test "gets a second more from a supervisor, by the child_spec" do
      assert Interpreter.child_spec([]).shutdown == 6_000
      assert Interpreter.child_spec(stop_timeout: 200).shutdown == 1_200
    end
  end

  describe "the option limits" do
    test "memory: what does not fit fails in Python, not on the machine" do
      inp = start_interpreter!(limits: [memory: 1024 * 1024 * 1024], on_memory_limit: :keep)
      assert {:error, %Error{exception: %{type: "MemoryError"}}} = Snex.pyeval(inp, "x = bytearray(4 << 30)")
      assert Snex.pyeval(inp, "return len(bytearray(1 << 20))") == {:ok, 1_048_576}
    end

    test "open_files and nice hold for Python and its children" do
      inp = start_interpreter!(limits: [open_files: 64, nice: 3])

      code = """
      import os, resource, subprocess
      child = subprocess.check_output(["sh", "-c", "ulimit -n; nice"]).split()
      return resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.nice(0), [int(n) for n in child]
      """

      assert Snex.pyeval(inp, code) == {:ok, {64, 3, [64, 3]}}
    end

    test "cpu: processor time that is used up ends Python" do
      {:ok, inp} = Interpreter.start_link(limits: [cpu: 1])
      assert {:error, error} = Snex.pyeval(inp, "while True: pass", timeout: :infinity)
      assert %Error{code: :interpreter_exited, exception: %{signal: signal}} = error
      assert signal in ["SIGXCPU", "SIGKILL"]
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end

    test "that makes no sense raises ArgumentError, which names it" do
      assert_raise ArgumentError, "unknown option :memori in :limits, did you mean :memory?", fn ->
        Interpreter.start_link(limits: [memori: 1])
      end

      for {name, value, expected} <- [
            {:cpu, 0, "an integer from 1 to"},
            {:memory, 2 ** 64, "an integer from 16777216 to"},
            {:open_files, "64", "an integer from"},
            {:open_files, 6, "an integer from 16 to"},
            {:memory, 512, "an integer from 16777216 to"},
            {:nice, 20, "an integer from -20 to 19"},
            {:reply, 63, "an integer from 64 to"},
            {:reply, :infinity, "an integer from 64 to"}
          ] do
        assert_raise ArgumentError,
                     ~r/option #{inspect(name)} of :limits cannot be .*: expected #{expected}/,
                     fn ->
                       Interpreter.start_link(limits: [{name, value}])
                     end
      end

      assert_raise ArgumentError, "expected option :limits to be a keyword list, got: 1", fn ->
        Interpreter.start_link(limits: 1)
      end
    end
  end
end
