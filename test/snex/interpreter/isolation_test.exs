defmodule Snex.Interpreter.IsolationTest do
  # What Python has of the VM that started it: nothing but its own ends of the pipes.
  use Snex.Case, async: true

  alias Snex.OtherVM
  alias Snex.ProcessTree

  @moduletag timeout: 300_000

  # A VM with one interpreter, which does as it is told, and the processes that belong to it.
  defp start(code, through) do
    {_name, python} = hd(pythons())

    vm =
      OtherVM.start(
        """
        {:ok, inp} = Snex.Interpreter.start_link(python: #{inspect(python)})
        {:ok, warden} = Snex.pyeval(inp, "import os; return os.getppid()")
        tell.({String.to_integer(System.pid()), warden, Snex.Interpreter.os_pid(inp)})
        #{code}
        Process.sleep(:infinity)
        """,
        through: through
      )

    {vm_pid, _, _} = pids = OtherVM.await(vm)
    on_exit(fn -> OtherVM.kill(vm, vm_pid, "KILL") end)
    {vm, pids}
  end

  # `{number, what it leads to}` for each descriptor of a process.
  defp descriptors(os_pid) do
    folder = "/proc/#{os_pid}/fd"

    for name <- File.ls!(folder), {:ok, target} <- [File.read_link(Path.join(folder, name))] do
      {String.to_integer(name), target}
    end
  end

  defp field(os_pid, name) do
    [_, value] = Regex.run(~r/^#{name}:\s*(.*)$/m, File.read!("/proc/#{os_pid}/status"))
    value
  end

  # The number of the controlling terminal, 0 for none; see proc(5).
  defp terminal(os_pid), do: os_pid |> ProcessTree.stat() |> Enum.at(4) |> String.to_integer()

  describe "descriptors" do
    # Open in the VM without close-on-exec, as those that a careless library opens.
    @careless ~S(for n in 10 11 12 13 14 15 16 17 18 19 50 100 200 255; do eval "exec $n</etc/passwd"; done; exec "$0" "$@")

    @files """
    files = for _ <- 1..50, do: File.open!("/etc/hostname")
    sockets = for _ <- 1..20, do: elem(:gen_udp.open(0, ip: {127, 0, 0, 1}), 1)
    port = Port.open({:spawn, "cat"}, [])
    {:ok, again} = Snex.Interpreter.start_link(python: System.find_executable("python3"))
    tell.({Snex.Interpreter.os_pid(again), length(files) + length(sockets), port})
    """

    test "of the VM are not Python's, and not the warden's" do
      {vm, {vm_pid, warden, first}} = start(@files, ["bash", "-c", @careless])
      {second, _, _} = OtherVM.await(vm)
      of_vm = descriptors(vm_pid)
      assert Enum.count(of_vm, &match?({_, "/etc/passwd"}, &1)) == 14
      assert Enum.count(of_vm, &match?({_, "/etc/hostname"}, &1)) == 50

      for os_pid <- [first, second] do
        {own, others} = Enum.split_with(descriptors(os_pid), fn {number, _} -> number <= 6 end)
        assert own |> Enum.map(&elem(&1, 0)) |> Enum.sort() == Enum.to_list(0..6)
        assert {0, "/dev/null"} in own
        for {number, target} <- own, number > 0, do: assert(target =~ ~r/^pipe:/)

        # Shared memory, the sockets over which memory is handed over and the warden asks for copies, and the event loop's own.
        assert length(others) <= 7
        for {_, target} <- others, do: assert(target =~ ~r/^(anon_inode:|socket:|\/memfd:)/)
        elsewhere = MapSet.new(of_vm ++ descriptors(warden), &elem(&1, 1))
        for {_, "socket:" <> _ = target} <- others, do: refute(target in elsewhere)
      end

      # The lifeline, two that lead to nothing or where the VM's standard error does, two for signals, and one to Python.
      assert Enum.all?(descriptors(warden), fn {_, target} -> not String.starts_with?(target, "/etc/") end)
      assert length(descriptors(warden)) <= 7
    end

    test "of the protocol are not handed on to what Python starts" do
      inp = start_interpreter!()

      code =
        "import subprocess; return subprocess.check_output(['ls', '/proc/self/fd'], close_fds=False, text=True)"

      # `ls` opens one itself.
      assert {:ok, list} = Snex.pyeval(inp, code)
      assert String.split(list) == ["0", "1", "2", "3"]
    end
  end

  describe "signals" do
    test "that the VM blocks or ignores are neither in what is started" do
      code = """
      wrap = fn python, args -> {"sh", ["-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status >&2; exec \\"$0\\" \\"$@\\"", python | args]} end
      me = self()
      {:ok, other} = Snex.Interpreter.start_link(wrap_exec: wrap, output: me)
      receive do: ({:snex_output, ^other, :stderr, text} -> tell.(text))
      """

      through = ["env", "--block-signal=USR1,USR2,TERM,CHLD", "--ignore-signal=HUP,INT,PIPE,ALRM"]
      {vm, {vm_pid, _, first}} = start(code, through)
      # So they were in the VM.
      assert field(vm_pid, "SigBlk") != "0000000000000000"
      assert field(vm_pid, "SigIgn") != "0000000000000000"
      zero = "0000000000000000"
      assert OtherVM.await(vm) == "SigBlk:\t#{zero}\nSigIgn:\t#{zero}\n"
      assert field(first, "SigBlk") == zero
      # Python itself ignores SIGPIPE (13) and, where there is such a limit, SIGXFSZ (25).
      assert field(first, "SigIgn") == "0000000001001000"
    end
  end

  describe "the terminal" do
    # Puts the command under a terminal of its own.
    @terminal "import os, pty, sys; os.environ.setdefault('TERM', 'dumb'); pty.spawn(sys.argv[1:])"

    test "that controls the VM does not control Python, which cannot open it" do
      {_name, python} = hd(pythons())

      code = ~S"""
      {:ok, opened} = Snex.pyeval(inp, ~S'''
      try:
          open("/dev/tty")
      except OSError as error:
          return error.strerror
      ''')
      tell.(opened)
      """

      {vm, {vm_pid, warden, os_pid}} = start(code, [python, "-c", @terminal])
      assert terminal(vm_pid) != 0
      assert terminal(warden) == 0
      assert terminal(os_pid) == 0
      assert OtherVM.await(vm) == "No such device or address"
    end
  end

  describe "listening sockets" do
    # Inodes of all sockets of this machine that somebody may connect to, or send to.
    defp listening do
      inodes = fn file, column, listens? ->
        case File.read("/proc/net/#{file}") do
          {:ok, text} ->
            for line <- tl(String.split(text, "\n", trim: true)),
                fields = String.split(line),
                listens?.(fields),
                do: Enum.at(fields, column)

          {:error, :enoent} ->
            []
        end
      end

      internet = for file <- ["tcp", "tcp6"], do: inodes.(file, 9, &(Enum.at(&1, 3) == "0A"))
      datagrams = for file <- ["udp", "udp6"], do: inodes.(file, 9, fn _ -> true end)
      # The flag of a socket that accepts.
      local = inodes.("unix", 6, &(Enum.at(&1, 3) == "00010000"))
      MapSet.new(List.flatten([internet, datagrams, local]), &"socket:[#{&1}]")
    end

    defp listeners(os_pids) do
      listening = listening()
      for os_pid <- os_pids, {_, target} <- descriptors(os_pid), target in listening, do: {os_pid, target}
    end

    test "there are none, in the VM, the warden or Python" do
      code = """
      {:ok, 3} = Snex.pyeval(inp, "return await Elixir.Enum.sum([1, 2])")
      tell.(:called)
      """

      {vm, pids} = start(code, [])
      assert OtherVM.await(vm) == :called
      assert listeners(Tuple.to_list(pids)) == []

      # One that user code opens is seen.
      inp = start_interpreter!()
      listen = "import socket; listener = socket.create_server(('127.0.0.1', 0))"
      {:ok, env} = Snex.make_env(inp)
      {:ok, nil} = Snex.pyeval(env, listen)
      assert [_] = listeners([Interpreter.os_pid(inp)])
      Snex.destroy_env(env)
    end
  end
end
