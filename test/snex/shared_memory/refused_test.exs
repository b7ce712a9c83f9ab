defmodule Snex.SharedMemory.RefusedTest do
  # Where the system refuses shared memory, or Python does with it what it should not: values arrive all the same.
  # Not async: it looks at the processes of this machine.
  use Snex.Case

  alias Snex.OtherVM
  alias Snex.ProcessTree

  @moduletag timeout: 300_000
  @moduletag skip: if(:os.type() != {:unix, :linux}, do: "there is no shared memory")

  @mib 1024 * 1024
  @forbid Path.expand("../../support/python/forbid.py", __DIR__)

  # What any interpreter does, with values that would lie in shared memory.
  @both_ways """
  view = Snex.Serde.binary(:binary.copy(<<7>>, 4_000_000), :memoryview)
  memory = "import snex; x = snex.shared(4_000_000); x[:2] = b'ab'; return x"
  {:ok, 28_000_000} = Snex.pyeval(py, "return sum(x)", %{"x" => view}, timeout: 60_000)
  {:ok, <<0, _::binary-size(3_999_999)>>} = Snex.pyeval(py, "return bytes(4_000_000)", timeout: 60_000)
  {:ok, <<"ab", 0, _::binary-size(3_999_997)>>} = Snex.pyeval(py, memory, timeout: 60_000)
  """

  defp both_ways(py), do: Code.eval_string(@both_ways, py: py)

  defp python, do: elem(hd(pythons()), 1)

  # Whether a program can be run through others here, which some sandboxes refuse.
  defp runs?([program | args]) do
    match?({_output, 0}, System.cmd(program, args ++ ["true"], stderr_to_stdout: true))
  end

  describe "a VM" do
    for {what, through, shared} <- [
          {"that may make no memory files", :forbid, nil},
          {"whose files may be no longer than 1 GiB", ["sh", "-c", "ulimit -f 2097152; exec \"$@\"", "sh"],
           0},
          {"without /dev/shm",
           [
             "unshare",
             "--map-root-user",
             "--mount",
             "sh",
             "-c",
             "mount -t tmpfs -o ro none /dev/shm; exec \"$@\"",
             "sh"
           ], 0}
        ] do
      test what do
        through =
          if unquote(through) == :forbid,
            do: [python(), @forbid],
            else: unquote(through)

        if runs?(through) do
          code = """
          {:ok, py} = Snex.Interpreter.start_link(python: #{inspect(python())})
          tell.(Snex.Interpreter.info(py).shared_memory)
          #{@both_ways}
          tell.(:done)
          """

          vm = OtherVM.start(code, through: through)
          assert OtherVM.await(vm) == unquote(shared)
          assert OtherVM.await(vm) == :done
        else
          IO.puts(
            :stderr,
            "not tested, because this system does not let #{hd(through)}: a VM #{unquote(what)}"
          )
        end
      end
    end
  end

  describe "a Python" do
    test "that may make no memory files" do
      through = [python(), @forbid]

      if runs?(through) do
        inp = start_interpreter!(wrap_exec: fn python, args -> {python, [@forbid, python | args]} end)
        assert {:error, error} = Snex.pyeval(inp, "import os; os.memfd_create('x')")
        assert error.exception.type == "PermissionError"
        both_ways(inp)
      else
        IO.puts(:stderr, "not tested, because this system has no such filters: a Python without memory files")
      end
    end

    test "whose files may be no longer than 1 MiB" do
      wrap = fn python, args ->
        {"/bin/sh", ["-c", "ulimit -f 2048; exec \"$@\"", "sh", python | args]}
      end

      inp = start_interpreter!(wrap_exec: wrap)
      {:ok, limit} = Snex.pyeval(inp, "import resource; return resource.getrlimit(resource.RLIMIT_FSIZE)[0]")
      assert limit <= 2 * @mib
      for _ <- 1..3, do: both_ways(inp)
    end
  end

  test "a Python that cuts, empties and overwrites the memory harms its own values alone" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)

    code = """
    import ctypes, os, threading

    files = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:snex" in os.readlink(f"/proc/self/fd/{name}"):
                files.append(int(name))
        except OSError:
            pass

    refused = []
    for fd in files:
        for size in (0, 1 << 40):
            try:
                os.ftruncate(fd, size)
            except PermissionError:
                refused.append(fd)

    spoil = threading.Event()
    spoil.set()
    libc = ctypes.CDLL(None)

    def spoiler():
        byte = 0
        while spoil.is_set():
            byte = (byte + 1) % 256
            for fd in files:
                os.pwrite(fd, bytes([byte]) * (1 << 20), 0)
                # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(1 << 20))

    thread = threading.Thread(target=spoiler)
    thread.start()
    return len(files), len(refused)
    """

    assert Snex.pyeval(env, code) == {:ok, {2, 4}}
    value = :binary.copy(<<7>>, @mib)

    for _ <- 1..50 do
      # Whatever has come is the VM's own, and stays as it is.
      with {:ok, back} when is_binary(back) <-
             Snex.pyeval(env, "return bytes(x)", %{"x" => Serde.binary(value, :memoryview)}, timeout: 60_000) do
        assert byte_size(back) == @mib
        hash = :erlang.md5(back)
        {:ok, _} = Snex.pyeval(env, "return x[0]", timeout: 60_000)
        assert :erlang.md5(back) == hash
      end
    end

    {:ok, nil} = Snex.pyeval(env, "spoil.clear(); thread.join(); del x", %{}, timeout: 60_000)
    assert Snex.pyeval(env, "return bytes(x)", %{"x" => Serde.binary(value, :memoryview)}) == {:ok, value}
  end

  test "the memory of a VM that is killed is gone with it, views and handed over memory included" do
    code = """
    Process.flag(:trap_exit, true)
    {:ok, py} = Snex.Interpreter.start_link(python: #{inspect(python())})
    {:ok, env} = Snex.make_env(py)
    view = Snex.Serde.binary(:binary.copy(<<7>>, 16 * 1024 * 1024), :memoryview)
    {:ok, nil} = Snex.pyeval(env, "kept = x", %{"x" => view})
    {:ok, memory} = Snex.pyeval(env, "import snex; return snex.shared(1 << 20)")
    tell.({System.pid(), Snex.Interpreter.os_pid(py), Snex.Interpreter.info(py).shared_memory})
    hear.()
    tell.(byte_size(memory))
    """

    vm = OtherVM.start(code)
    {os_pid, python, shared} = OtherVM.await(vm)
    assert shared in (16 * @mib)..(17 * @mib)
    files = memory_files(os_pid)
    assert length(files) >= 3
    assert Enum.all?(files, &(holders(&1) != []))

    tree = ProcessTree.watch([os_pid, python])
    OtherVM.kill(vm, os_pid, "KILL")
    ProcessTree.await_end(tree)
    # The kernel frees a file when the last process has let go of it.
    eventually(fn -> Enum.all?(files, &(holders(&1) == [])) end)
  end

  # The inodes of memory files that a process has open or mapped.
  defp memory_files(os_pid) do
    with {:ok, maps} <- File.read("/proc/#{os_pid}/maps"), {:ok, fds} <- File.ls("/proc/#{os_pid}/fd") do
      mapped = for [_, inode] <- Regex.scan(~r/ (\d+) +\/memfd:snex/, maps), do: inode

      opened =
        for fd <- fds,
            {:ok, "/memfd:snex" <> _} <- [File.read_link("/proc/#{os_pid}/fd/#{fd}")],
            {inode, 0} <- [
              System.cmd("stat", ["-L", "-c", "%i", "/proc/#{os_pid}/fd/#{fd}"], stderr_to_stdout: true)
            ],
            do: String.trim(inode)

      Enum.uniq(mapped ++ opened)
    else
      {:error, _gone} -> []
    end
  end

  # The processes of this machine that have a memory file.
  defp holders(inode) do
    for os_pid <- File.ls!("/proc"), os_pid =~ ~r/^\d+$/, inode in memory_files(os_pid), do: os_pid
  end
end
