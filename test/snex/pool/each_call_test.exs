defmodule Snex.Pool.EachCallTest do
  # Pools with `fork: :each_call`: a copy of the template for each call, which ends with it.
  use Snex.Case, async: true

  import Snex.Pools

  alias Snex.Env
  alias Snex.Pool

  @moduletag timeout: 300_000
  @moduletag :capture_log

  @script """
  import ctypes, os, subprocess, sys, time
  made_by = os.getpid()
  calls = 0
  """

  defp start_each!(opts \\ []),
    do: start_pool!(Keyword.merge([fork: :each_call, size: 2, init_script: @script], opts))

  # The Pythons of a pool, without its template.
  defp os_pids(pool), do: for(%{interpreter: pid} <- Pool.info(pool).members, do: Interpreter.os_pid(pid))

  # As many copies wait as may run, and none is in use.
  defp await_rest(pool),
    do:
      until(
        pool,
        &(length(&1.members) == &1.size and Enum.all?(&1.members, fn one -> one.status == :running end))
      )

  test "each call has a copy of its own, in which nothing is left of another" do
    pool = start_each!()
    template = Interpreter.os_pid(Pool.info(pool).template)

    code =
      "calls += 1; os.mark = os.mark + 1 if hasattr(os, 'mark') else 1; return made_by, os.getpid(), calls, os.mark"

    answers = for _ <- 1..10, do: Snex.pyeval!(pool, code)

    assert for({made_by, _os_pid, calls, mark} <- answers, uniq: true, do: {made_by, calls, mark}) == [
             {template, 1, 1}
           ]

    os_pids = for {_made_by, os_pid, _calls, _mark} <- answers, do: os_pid
    assert length(Enum.uniq([template | os_pids])) == 11
    await_gone(os_pids)
    assert %{fork: :each_call, size: 2, failure: nil} = Pool.info(pool)
  end

  # Whenever a copy has come to the end of its call, the pool looks which ones it can end.
  test "a copy is not ended while its answer is on the way" do
    pool = start_each!()

    long = fn ->
      Snex.pyeval(pool, "return [object() for _ in range(200_000)]", returns: :auto, timeout: 60_000)
    end

    for _ <- 1..5 do
      task = Task.async(fn -> with {:ok, answer} <- long.(), do: length(answer) end)
      others = Stream.repeatedly(fn -> Snex.pyeval(pool, "return 1") end)

      assert others |> Stream.take_while(fn _other -> Process.alive?(task.pid) end) |> Enum.uniq() == [
               {:ok, 1}
             ]

      assert Task.await(task) == 200_000
    end
  end

  test "what a call has started is killed when it returns" do
    pool = start_each!()

    code = """
    inner = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
        "print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True); signal.pause()"
    outer = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, start_new_session=True)
    return os.getpid(), outer.pid, int(outer.stdout.readline())
    """

    assert {os_pid, outer, inner} = Snex.pyeval!(pool, code, %{}, timeout: 60_000)
    await_gone([os_pid, outer, inner])
  end

  test "as many calls run as the pool has room for, and the others follow in their order" do
    pool = start_each!()
    running = for _ <- 1..2, do: hold(pool, timeout: :infinity)
    waiting = for n <- 1..3, do: tap(begin(pool, timeout: :infinity), fn _call -> await_waiting(pool, n) end)
    # There are copies, but no room.
    await_running_copies(pool, 2)
    assert Enum.all?(waiting, &(not running?(&1)))

    [one, two] = running
    [three, four, five] = waiting
    over = fn call -> assert let_go(call) == {:ok, call.os_pid} end
    over.(one)
    three = Map.merge(three, await_running(three))
    assert not running?(four)
    over.(two)
    four = Map.merge(four, await_running(four))
    assert not running?(five)
    over.(three)
    five = Map.merge(five, await_running(five))
    Enum.each([four, five], over)
    os_pids = for call <- [one, two, three, four, five], do: call.os_pid
    assert length(Enum.uniq(os_pids)) == 5
    await_gone(os_pids)
    await_rest(pool)
  end

  defp await_running_copies(pool, count),
    do: until(pool, &(Enum.count(&1.members, fn one -> one.status == :running end) == count))

  test "a copy that crashes, gets stuck, or loses its caller, takes nothing else with it" do
    pool = start_each!()
    other = hold(pool, timeout: :infinity)
    assert {:error, %Error{code: :interpreter_exited}} = Snex.pyeval(pool, "os._exit(3)")
    assert {:error, %Error{code: :interpreter_exited}} = Snex.pyeval(pool, "ctypes.string_at(0)")
    stuck = "tell(os.getpid()); ctypes.PyDLL(None).sleep(1000)"
    me = self()
    vars = %{"tell" => &send(me, {:stuck, &1})}

    assert {:error, %Error{code: :response_timeout}} =
             Snex.pyeval(pool, "await " <> stuck, vars, timeout: 500)

    assert_receive {:stuck, os_pid}
    await_gone([os_pid])

    caller =
      spawn(fn ->
        Snex.pyeval(pool, "await tell(os.getpid())\ntime.sleep(1000)", vars, timeout: :infinity)
      end)

    assert_receive {:stuck, os_pid}, 60_000
    Process.exit(caller, :kill)
    await_gone([os_pid])
    assert let_go(other) == {:ok, other.os_pid}
    assert Snex.pyeval(pool, "return calls") == {:ok, 0}
    assert Pool.info(pool).failure == nil
  end

  test "retry: 1 runs a call that has crashed once more, in another copy" do
    pool = start_each!()
    count = :counters.new(1, [])

    number = fn ->
      :counters.add(count, 1, 1)
      :counters.get(count, 1)
    end

    code = "n = await number()\nif n == 1: os._exit(1)\nreturn n"
    assert Snex.pyeval(pool, code, %{"number" => number}, retry: 1) == {:ok, 2}
  end

  test "a stream has its copy until it ends, or is given up" do
    pool = start_each!()
    code = "while True: yield os.getpid()"
    pids = pool |> Snex.stream(code) |> Enum.take(1_000)
    assert [os_pid] = Enum.uniq(pids)
    await_gone([os_pid])
    assert [0, 1, 2] = pool |> Snex.stream("yield from range(3)") |> Enum.to_list()
    await_rest(pool)
  end

  test "callbacks, prints and calls from within belong to the call" do
    pool = start_each!(size: 1)

    printed =
      ExUnit.CaptureIO.capture_io(fn ->
        inner = fn -> Snex.pyeval!(pool, "return os.getpid()") end
        code = "print('hello'); return await inner() == os.getpid()"
        # The only one that may run: it runs where its caller waits for it.
        assert Snex.pyeval(pool, code, %{"inner" => inner}, timeout: 60_000) == {:ok, true}
      end)

    assert printed == "hello\n"
  end

  test "Snex.map/4 runs in copies as well" do
    pool = start_each!()
    assert Snex.map(pool, "math.sqrt", [1, 4, 9]) == [ok: 1.0, ok: 2.0, ok: 3.0]
  end

  test "what could not outlive its call is refused, with the way out" do
    pool = start_each!()
    assert {:error, %Error{code: :call_failed} = error} = Snex.make_env(pool)
    assert error.reason =~ ~r"^an environment would be gone after this call: .*Snex.Pool.checkout/3"

    for ask <- [
          &Snex.call(&1, "dict", [], returns: :object),
          &Snex.pyeval(&1, "return {}", returns: :object),
          &Snex.get(&1, "os", returns: :object)
        ] do
      assert {:error, %Error{code: :call_failed} = error} = ask.(pool)
      assert error.reason =~ ~r"^an object would be gone after this call: "
    end

    # One that came by itself.
    assert {:ok, lock} = Snex.call(pool, "threading.Lock", [])

    eventually(fn ->
      case Snex.Object.call(lock, "locked", []) do
        {:error, %Error{code: :object_not_found} = error} ->
          error.reason =~ "which was for one call, and ended with it (fork: :each_call)"

        # The copy has not ended yet.
        {:ok, false} ->
          false
      end
    end)
  end

  test "checkout/3 gives one copy to several calls" do
    pool = start_each!()

    assert {:ok, os_pid} =
             Pool.checkout(pool, fn py ->
               assert {:ok, %Env{} = env} = Snex.make_env(py, %{"x" => 1})
               assert {:ok, os_pid} = Snex.pyeval(env, "os.mark = x; return os.getpid()")
               assert Snex.pyeval(pool, "return os.getpid(), os.mark") == {:ok, {os_pid, 1}}
               os_pid
             end)

    await_gone([os_pid])
    await_rest(pool)
  end

  test "resize/2, restart/1, drain/1 and the end take nothing from calls that run" do
    pool = start_alone!(fork: :each_call, size: 1, init_script: @script)
    first = hold(pool, timeout: :infinity)
    assert Pool.resize(pool, 3) == :ok
    template = Pool.info(pool).template
    others = for _ <- 1..2, do: hold(pool, timeout: :infinity)
    assert Pool.restart(pool) == :ok
    assert Pool.info(pool).template != template
    assert Pool.resize(pool, 1) == :ok
    late = begin(pool, timeout: :infinity)
    await_waiting(pool, 1)
    for call <- [first | others], do: assert(let_go(call) == {:ok, call.os_pid})
    late = Map.merge(late, await_running(late))
    draining = Task.async(fn -> Pool.drain(pool) end)
    until(pool, & &1.draining)
    assert {:error, %Error{code: :call_failed}} = Snex.pyeval(pool, "return 1")
    assert let_go(late) == {:ok, late.os_pid}
    assert Task.await(draining, 60_000) == :ok
    # A copy that has had its call may still be there.
    await_rest(pool)
    os_pids = [Interpreter.os_pid(Pool.info(pool).template) | os_pids(pool)]
    assert GenServer.stop(pool) == :ok
    await_gone(os_pids ++ for(call <- [first, late | others], do: call.os_pid))
  end

  test "calls under way end with their pool" do
    pool = start_alone!(fork: :each_call, size: 1, init_script: @script)
    call = hold(pool, timeout: :infinity)
    assert GenServer.stop(pool) == :ok
    assert {:error, %Error{}} = Task.await(call.task, 60_000)
    await_gone([call.os_pid])
  end

  test "a template that is killed is replaced, and calls go on" do
    pool = start_each!()
    template = Pool.info(pool).template
    kill(template)
    until(pool, &(&1.template not in [nil, template]))
    for _ <- 1..5, do: assert(Snex.pyeval(pool, "return calls", %{}, timeout: 60_000) == {:ok, 0})
  end

  test "many calls at once leave nothing behind" do
    pool = start_each!(queue: [limit: 1_000, timeout: :infinity])
    warden = Snex.pyeval!(pool, "return os.getppid()")
    template = Interpreter.os_pid(Pool.info(pool).template)
    await_rest(pool)
    open = fn -> for os_pid <- [warden, template], do: length(File.ls!("/proc/#{os_pid}/fd")) end
    before = open.()

    1..300
    |> Task.async_stream(
      fn n -> Snex.pyeval!(pool, "calls += n; return calls", %{"n" => n}, timeout: :infinity) end,
      max_concurrency: 8,
      timeout: :infinity
    )
    |> Enum.zip(1..300)
    |> Enum.each(fn {result, n} -> assert result == {:ok, n} end)

    await_rest(pool)
    expected = Enum.sort([template | os_pids(pool)])

    eventually(fn ->
      children =
        File.read!("/proc/#{warden}/task/#{warden}/children")
        |> String.split()
        |> Enum.map(&String.to_integer/1)

      Enum.sort(children) == expected and open.() == before
    end)
  end

  @tag :tmp_dir
  test "where there is no fork, each call has an interpreter of its own all the same", %{tmp_dir: tmp_dir} do
    # As another implementation of Python would say.
    File.write!(Path.join(tmp_dir, "sitecustomize.py"), "import sys\nsys.implementation.name = 'other'\n")
    pool = start_each!(size: 1, python_path: [tmp_dir])
    assert %{fork: false} = Pool.info(pool)
    code = "calls += 1; return made_by == os.getpid(), made_by, calls"

    assert [{true, one, 1}, {true, other, 1}] =
             for(_ <- 1..2, do: Snex.pyeval!(pool, code, %{}, timeout: 60_000))

    assert one != other
  end

  test "one call at a time is all that a copy has" do
    message = ~r"^the option :concurrency cannot be 4 with fork: :each_call: a copy runs one call"
    assert_raise ArgumentError, message, fn -> Pool.start_link(fork: :each_call, concurrency: 4) end
  end
end
