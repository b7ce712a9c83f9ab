defmodule Snex.MemoryHandoverTest do
  # Not async: it counts the VM's resources and descriptors.
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Native
  alias Snex.ProcessTree
  alias Snex.PythonPackage

  @moduletag timeout: 300_000
  @moduletag skip: if(:os.type() != {:unix, :linux}, do: "there is no shared memory")

  @mib 1024 * 1024

  @make """
  import snex
  x = snex.shared(1 << 20)
  x[:] = b'\\x07' * (1 << 20)
  """

  defp memories, do: Native.resources_count().memories

  # Mappings of memory files in this VM.
  defp mappings do
    "/proc/self/maps" |> File.read!() |> String.split("\n") |> Enum.count(&(&1 =~ "memfd:snex"))
  end

  defp none_left do
    eventually(fn ->
      :erlang.garbage_collect()
      memories() == 0 and mappings() == 0
    end)
  end

  test "memory arrives as a binary that is a part of no copy, and lives as long as the binary" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)

    apart(fn ->
      {:ok, value} = Snex.pyeval(env, @make <> "return x")
      assert value == :binary.copy(<<7>>, @mib)
      assert {memories(), mappings()} == {1, 1}
      # As any binary: parts of it, messages and tables refer to it.
      part = binary_part(value, 10, 10)
      assert Task.await(Task.async(fn -> binary_part(value, 0, 5) end)) == <<7, 7, 7, 7, 7>>
      assert part == :binary.copy(<<7>>, 10)
    end)

    none_left()
  end

  test "what Python writes to it afterwards does not reach Elixir; a second time, it is a copy" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    {:ok, first} = Snex.pyeval(env, @make <> "view = memoryview(x); return x")
    assert {:ok, {9, 9}} = Snex.pyeval(env, "view[0] = 9; return x[0], view[0]")
    assert :binary.first(first) == 7
    assert {:ok, <<9, 7, _::binary>> = second} = Snex.pyeval(env, "return x")
    assert byte_size(second) == @mib
    assert memories() == 1
    assert :binary.first(first) == 7
  end

  test "it outlives its Python" do
    Process.flag(:trap_exit, true)
    {:ok, inp} = Interpreter.start_link(python: elem(hd(pythons()), 1))
    {:ok, value} = Snex.pyeval(inp, @make <> "return x")
    tree = ProcessTree.watch([Interpreter.os_pid(inp)])
    {_, 0} = System.cmd("kill", ["-KILL", to_string(Interpreter.os_pid(inp))])
    assert_receive {:EXIT, ^inp, _}, 60_000
    ProcessTree.await_end(tree)
    assert value == :binary.copy(<<7>>, @mib)
  end

  test "within other values, in messages, in arguments of calls and in items of streams" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    mib = :binary.copy(<<7>>, @mib)
    {:ok, value} = Snex.pyeval(env, @make <> "return {'a': [1, (x, 'b')]}")
    assert value == %{"a" => [1, {mib, "b"}]}
    assert {:ok, nil} = Snex.pyeval(env, @make <> "await snex.send(me, x)", %{"me" => self()})
    assert_receive ^mib, 60_000
    assert Snex.pyeval(env, @make <> "return await snex.Elixir.Kernel.byte_size(x)") == {:ok, @mib}

    code = """
    import snex
    for n in range(3):
        x = snex.shared(1 << 20)
        x[0] = n
        yield x
    """

    items = inp |> Snex.stream(code) |> Enum.to_list()
    assert Enum.map(items, &:binary.first/1) == [0, 1, 2]

    {:ok, [%Snex.Object{}, memory]} = Snex.pyeval(env, @make <> "return [object(), x]", %{}, returns: :auto)
    assert memory == mib
  end

  test "a child that has been forked cannot change what is handed over" do
    inp = start_interpreter!()

    code =
      @make <>
        """
        import os
        r, w = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(r, 1)
            x[:] = b'\\x09' * len(x)
            os._exit(0)
        """

    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, code)
    {:ok, value} = Snex.pyeval(env, "return x")
    assert {:ok, _} = Snex.pyeval(env, "os.write(w, b'1'); os.waitpid(child, 0)")
    assert value == :binary.copy(<<7>>, @mib)
  end

  test "an answer that comes too late, or whose receiver is gone, leaves nothing behind" do
    inp = start_interpreter!()
    {:ok, env} = Snex.make_env(inp)
    {:ok, nil} = Snex.pyeval(env, "import time")

    for _ <- 1..10 do
      assert {:error, %Error{code: :response_timeout}} =
               Snex.pyeval(env, @make <> "time.sleep(0.05)\nreturn x", %{}, timeout: 10, on_timeout: :leave)
    end

    assert {:ok, 1} = Snex.pyeval(env, "del x; return 1")
    none_left()
  end

  @tag :slow
  @tag :tmp_dir
  test "an array of numpy's is handed over as such", %{tmp_dir: folder} do
    exchange_cache(folder)
    options = [pyproject_toml: PythonPackage.toml("arrays", ["numpy"]), python_preference: :system]
    {{:ok, inp}, _output} = with_io(fn -> Interpreter.start_link(options) end)
    {:ok, env} = Snex.make_env(inp)
    code = "import snex; a = snex.shared_array((512, 256), 'f8'); a[1, 2] = 1.5; return a"
    assert {:ok, %Snex.Array{type: {:f, 64}, shape: {512, 256}, data: data}} = Snex.pyeval(env, code)
    assert <<1.5::float-64-native>> == binary_part(data, 8 * 258, 8)
    assert memories() == 1
    assert {:ok, {7.0, 1.5}} = Snex.pyeval(env, "a[0, 0] = 7; return float(a[0, 0]), float(a[1, 2])")
    assert <<0::64>> == binary_part(data, 0, 8)
  end

  test "without shared memory it is copied" do
    for opts <- [[shared_memory: false], [port_opts: [:use_stdio]]] do
      inp = start_interpreter!(opts)
      {:ok, value} = Snex.pyeval(inp, @make <> "return x")
      assert value == :binary.copy(<<7>>, @mib)
      assert memories() == 0
    end
  end
end
