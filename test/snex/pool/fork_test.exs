defmodule Snex.Pool.ForkTest do
  # Pools with `fork: true`, whose members are copies of a template that the pool owns.
  use Snex.Case, async: true

  import ExUnit.CaptureLog
  import Snex.Pools

  alias Snex.Pool

  @moduletag timeout: 300_000
  @moduletag :capture_log
  @moduletag :tmp_dir

  @script """
  import os, json
  made_by = os.getpid()
  x = [1, 2]
  """

  defp start_copies!(opts \\ []),
    do: start_pool!(Keyword.merge([fork: true, size: 2, init_script: @script], opts))

  # Each member's answer to the code.
  defp each(pool, code), do: for(member <- running(pool), do: Snex.pyeval(member, code))

  # The Python of the template that all members are copies of.
  defp template(pool) do
    template = Pool.info(pool).template
    for member <- running(pool), do: assert(Interpreter.info(member).template == template)
    template
  end

  # A script that names the version that a file has.
  defp versioned(tmp_dir, version) do
    path = Path.join(tmp_dir, "version.py")
    File.write!(path, version)
    "version = eval(open(#{inspect(path)}).read())"
  end

  defp set_version(tmp_dir, version), do: File.write!(Path.join(tmp_dir, "version.py"), version)

  defmodule Numbered do
    @moduledoc false
    # With a name of its own, as `use Snex.Interpreter, name: ...` gives.
    def start_link(opts), do: opts |> Keyword.put_new(:name, __MODULE__) |> Interpreter.start_link()
    defdelegate child_spec(opts), to: Interpreter
  end

  describe "the members" do
    test "begin with what the template has, which ran the script alone" do
      pool = start_copies!(size: 4)
      os_pid = Interpreter.os_pid(template(pool))
      assert each(pool, "return made_by") == List.duplicate({:ok, os_pid}, 4)
      assert each(pool, "return json.dumps(x)") == List.duplicate({:ok, "[1, 2]"}, 4)
      os_pids = for {:ok, os_pid} <- each(pool, "return os.getpid()"), do: os_pid
      assert length(Enum.uniq([os_pid | os_pids])) == 5
      assert %{fork: true, running: 4, failure: nil} = Pool.info(pool)
    end

    test "are isolated from each other, and the template takes no call" do
      pool = start_copies!()
      [one, other] = running(pool)
      served = Interpreter.info(template(pool)).requests_served
      assert Snex.pyeval(one, "x.append(3); return x") == {:ok, [1, 2, 3]}
      assert Snex.pyeval(other, "return x") == {:ok, [1, 2]}
      calls = for _ <- 1..3, do: begin(pool)
      await_waiting(pool, 1)
      assert Interpreter.info(template(pool)).requests_served == served
      for call <- calls, do: assert({:ok, _} = call |> Map.merge(await_running(call)) |> let_go())
    end

    test "share the template's memory" do
      pool = start_copies!(init_script: "big = bytearray(b'x') * 200_000_000")

      private = """
      import re
      return int(re.search(r"Private_Dirty: +(\\d+)", open("/proc/self/smaps_rollup").read())[1])
      """

      for {:ok, kilobytes} <- each(pool, private), do: assert(kilobytes < 100_000)
    end

    test "are of the pool's module, and have the pool's options" do
      pool = start_copies!(interpreter: Numbered, limits: [open_files: 100], label: :mine)
      limit = "import resource; return resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
      assert each(pool, limit) == [{:ok, 100}, {:ok, 100}]
      assert Process.whereis(Numbered) == nil
      for member <- running(pool), do: assert({:ok, _value} = Snex.pyeval(member, "return x"))
    end

    test "are more and fewer with resize/2" do
      pool = start_copies!(size: 1)
      template = template(pool)
      assert Pool.resize(pool, 3) == :ok
      assert template(pool) == template
      assert Enum.uniq(each(pool, "return made_by")) == [{:ok, Interpreter.os_pid(template)}]
      assert Pool.resize(pool, 1) == :ok
      until(pool, &(length(&1.members) == 1))
      assert template(pool) == template
    end

    test "are replaced by copies when they crash, and when they have served" do
      pool = start_copies!(size: 1, recycle: [requests: 3, jitter: 0])
      template = template(pool)
      [first] = running(pool)
      kill(first)
      until(pool, &match?(%{running: 1, members: [%{interpreter: pid}]} when pid != first, &1))
      [second] = running(pool)
      for _ <- 1..3, do: assert({:ok, _value} = Snex.pyeval(pool, "return made_by"))
      until(pool, &match?(%{running: 1, members: [%{interpreter: pid}]} when pid != second, &1))
      assert template(pool) == template
      assert Snex.pyeval(pool, "return made_by") == {:ok, Interpreter.os_pid(template)}
    end
  end

  describe "a template that is killed" do
    test "is replaced, and the members go on" do
      pool = start_copies!()
      template = template(pool)
      members = running(pool)
      call = hold(pool)
      kill(template)
      until(pool, &(&1.template not in [nil, template]))
      assert Enum.sort(running(pool)) == Enum.sort(members)
      assert let_go(call) == {:ok, call.os_pid}
      kill(hd(members))

      until(
        pool,
        &(&1.running == 2 and hd(members) not in Enum.map(&1.members, fn one -> one.interpreter end))
      )

      [new] = running(pool) -- members
      assert Interpreter.info(new).template == Pool.info(pool).template
      assert Snex.pyeval(new, "return made_by") == {:ok, Interpreter.os_pid(Pool.info(pool).template)}
    end

    test "and cannot be started again leaves the members, says why, and is tried again", %{tmp_dir: tmp_dir} do
      pool = start_copies!(init_script: versioned(tmp_dir, "1"))
      template = template(pool)
      set_version(tmp_dir, "1 / 0")
      kill(template)
      until(pool, &match?(%{template: nil, running: 2, failure: %{attempts: n}} when n > 1, &1))
      assert Pool.info(pool).failure.error.reason =~ "division by zero"
      assert {:error, %Error{}} = Pool.resize(pool, 3)
      assert each(pool, "return version") == [{:ok, 1}, {:ok, 1}]
      set_version(tmp_dir, "2")
      until(pool, &(&1.template != nil and &1.running == 3))
      assert pool |> each("return version") |> Enum.sort() == [{:ok, 1}, {:ok, 1}, {:ok, 2}]
    end
  end

  describe "restart/1" do
    test "renews the template first, and then the members", %{tmp_dir: tmp_dir} do
      pool = start_copies!(init_script: versioned(tmp_dir, "1"))
      template = template(pool)
      os_pid = Interpreter.os_pid(template)
      set_version(tmp_dir, "2")
      assert Pool.restart(pool) == :ok
      assert each(pool, "return version") == [{:ok, 2}, {:ok, 2}]
      assert template(pool) != template
      await_gone([os_pid])
    end

    test "goes on with the old template if there is no new one", %{tmp_dir: tmp_dir} do
      pool = start_copies!(init_script: versioned(tmp_dir, "1"))
      template = template(pool)
      members = running(pool)
      set_version(tmp_dir, "1 / 0")
      assert {:error, %Error{} = error} = Pool.restart(pool)
      assert error.reason =~ "division by zero"
      assert running(pool) == members
      assert Pool.resize(pool, 3) == :ok
      assert template(pool) == template
      assert each(pool, "return version") == List.duplicate({:ok, 1}, 3)
    end

    test "several times at once, also while the pool starts, leaves one template", %{tmp_dir: tmp_dir} do
      pool = start_copies!(init_script: versioned(tmp_dir, "1"), sync_start?: false)
      set_version(tmp_dir, "2")
      restarts = for _ <- 1..3, do: Task.async(fn -> Pool.restart(pool) end)
      assert Task.await_many(restarts, 60_000) == [:ok, :ok, :ok]
      until(pool, &(&1.running == 2 and Enum.all?(&1.members, fn one -> one.due == nil end)))
      assert each(pool, "return version") == [{:ok, 2}, {:ok, 2}]
      template = template(pool)
      # The pool, its members and their template: nothing else is linked to it.
      eventually(fn -> pool |> linked() |> Enum.sort() == Enum.sort([template | running(pool)]) end)
    end
  end

  defp linked(pool) do
    {:links, links} = Process.info(pool, :links)
    {:parent, parent} = Process.info(pool, :parent)
    for pid <- links, is_pid(pid), pid != parent, do: pid
  end

  test "the template ends with its pool" do
    pool = start_alone!(fork: true, size: 2, init_script: @script)
    os_pids = for pid <- [template(pool) | running(pool)], do: Interpreter.os_pid(pid)
    assert GenServer.stop(pool) == :ok
    await_gone(os_pids)
  end

  describe "a template with threads" do
    @threaded """
    import threading
    stop = threading.Event()
    threading.Thread(target=stop.wait, name="poller", daemon=True).start()
    """

    test "is refused with their names" do
      Process.flag(:trap_exit, true)
      assert {:error, %Error{} = error} = Pool.start_link(fork: true, size: 2, init_script: @threaded)
      assert error.reason =~ "threads of its own, which a copy would lack: poller."
    end

    test "is copied without them with threads: :ignore" do
      pool = start_copies!(init_script: @threaded, threads: :ignore)
      assert each(pool, "return threading.active_count()") == [{:ok, 1}, {:ok, 1}]
    end
  end

  test "a script that raises is the error of the start" do
    Process.flag(:trap_exit, true)
    assert {:error, %Error{} = error} = Pool.start_link(fork: true, size: 2, init_script: "1 / 0")
    assert error.reason =~ "division by zero"
  end

  test "where Python cannot be copied, members start as usual, with one warning", %{tmp_dir: tmp_dir} do
    # As another implementation of Python would say.
    File.write!(Path.join(tmp_dir, "sitecustomize.py"), "import sys\nsys.implementation.name = 'other'\n")

    log =
      capture_log(fn ->
        pool = start_copies!(python_path: [tmp_dir], threads: :ignore, name: __MODULE__.Other)
        assert %{fork: false, template: nil, running: 2} = Pool.info(pool)
        for member <- running(pool), do: assert(Interpreter.info(member).template == nil)
        assert each(pool, "return made_by == os.getpid()") == [{:ok, true}, {:ok, true}]
        assert Pool.restart(pool) == :ok
        assert Pool.resize(pool, 3) == :ok
      end)

    warning =
      "the interpreters of the pool Snex.Pool.ForkTest.Other are not copies, but are started one by one"

    assert [_before, rest] = String.split(log, warning)
    assert rest =~ "a copy needs CPython, and this is other"
  end

  test "without the option, info/1 says so" do
    assert %{fork: false, template: nil} = Pool.info(start_pool!(size: 1))
  end

  test "other values are refused" do
    for value <- [:each, nil, 1] do
      message = "option :fork cannot be #{inspect(value)}: expected false, true or :each_call"
      assert_raise ArgumentError, message, fn -> Pool.start_link(fork: value) end
    end

    assert_raise ArgumentError, ~r"^the option :fork cannot be true with the option :template: ", fn ->
      Pool.child_spec(fork: true, template: self())
    end
  end
end
