defmodule Snex.Pool.BadInputTest do
  use Snex.Case, async: true

  import Snex.Pools

  alias Snex.Pool

  describe "start_link/1 raises" do
    test "for values that an option cannot have" do
      for {opts, message} <- [
            {[size: 0], "option :size cannot be 0: expected an integer from 1 to 10000"},
            {[size: "4"], "option :size cannot be \"4\""},
            {[size: 1.0], "option :size cannot be 1.0"},
            {[concurrency: 0], "option :concurrency cannot be 0"},
            {[interpreter: NoSuchModule],
             "option :interpreter cannot be NoSuchModule: expected a module with"},
            {[interpreter: Enum], "option :interpreter cannot be Enum"},
            {[interpreter: "numpy"], "option :interpreter cannot be \"numpy\""},
            {[queue: 5], "expected option :queue to be a keyword list, got: 5"},
            {[queue: [limit: -1]], "option :limit of :queue cannot be -1"},
            {[queue: [timeout: :never]], "option :timeout of :queue cannot be :never"},
            {[queue: [limits: 1]], "unknown option :limits in :queue, did you mean :limit?"},
            {[recycle: [requests: 0]], "option :requests of :recycle cannot be 0"},
            {[recycle: [memory: :all]], "option :memory of :recycle cannot be :all"},
            {[recycle: [jitter: 2]], "option :jitter of :recycle cannot be 2: expected a number from 0 to 1"},
            {[name: "pool"], "option :name cannot be \"pool\""},
            {[sizes: 2], "unknown option :sizes, did you mean :size?"},
            {[init_scrip: "x = 1"], "unknown option :init_scrip, did you mean :init_script?"},
            {[stop_timeout: -1], "option :stop_timeout cannot be -1"},
            {:size, "expected a keyword list of options, got: :size"}
          ] do
        error = assert_raise ArgumentError, fn -> Pool.start_link(opts) end
        assert Exception.message(error) =~ message
        assert_raise ArgumentError, fn -> Pool.child_spec(opts) end
      end
    end
  end

  describe "start_link/1 returns an error" do
    @describetag :capture_log

    test "if an interpreter cannot be started, and leaves none behind" do
      assert {:error, %Error{code: :call_failed, reason: reason}} =
               Pool.start_link(size: 2, python: "/no/python")

      assert reason =~ "no executable Python at \"/no/python\""

      assert {:error, %Error{reason: reason}} = Pool.start_link(size: 1, python: "no-such-python")
      assert reason =~ "\"no-such-python\": no folder of PATH has a program of this name"
      assert {:error, %Error{code: :python_runtime_error}} = Pool.start_link(size: 2, init_script: "1 / 0")
      me = self()
      first = :counters.new(1, [])

      script = fn ->
        :counters.add(first, 1, 1)
        send(me, {:script, self()})
        if :counters.get(first, 1) == 1, do: "import os, time; time.sleep(60)", else: raise("not this one")
      end

      assert {:error, %Error{code: :call_failed}} = Pool.start_link(size: 2, init_script: script)
      refute Process.info(self(), :links) |> elem(1) |> Enum.any?(&is_tuple/1)
    end

    test "for a name that is taken" do
      name = :"pool_#{System.unique_integer([:positive])}"
      pool = start_pool!(size: 1, name: name)
      assert Pool.start_link(size: 1, name: name) == {:error, {:already_started, pool}}
      start_interpreter!(name: :"#{name}_other")
      assert {:error, {:already_started, _}} = Pool.start_link(size: 1, name: :"#{name}_other")
    end
  end

  test "below a supervisor, a pool that cannot start fails its start" do
    Process.flag(:trap_exit, true)

    ExUnit.CaptureLog.capture_log(fn ->
      assert {:error, {:shutdown, {:failed_to_start_child, Pool, %Error{}}}} =
               Supervisor.start_link([{Pool, size: 1, python: "/no/python"}], strategy: :one_for_one)
    end)
  end

  test "functions of a pool raise for a size that is none, and exit without a pool" do
    pool = start_pool!(size: 1)
    for size <- [0, -1, nil, :many, 1.5], do: assert_raise(ArgumentError, fn -> Pool.resize(pool, size) end)
    assert_raise ArgumentError, ~r/unknown option :time/, fn -> Pool.checkout(pool, & &1, time: 1) end
    assert_raise FunctionClauseError, fn -> Pool.checkout(pool, fn -> 1 end) end

    assert_raise ArgumentError, ~r/expected an environment or an interpreter/, fn ->
      Pool.checkout("pool", & &1)
    end

    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Pool.checkout(:nobody, & &1)
    assert {:noproc, _} = catch_exit(Pool.info(:nobody))
    assert {:noproc, _} = catch_exit(Pool.resize(:nobody, 1))
    assert Snex.pyeval(pool, "return 1") == {:ok, 1}
  end

  test "an interpreter is not a pool" do
    inp = start_interpreter!()
    assert {:error, %Error{code: :call_failed} = error} = Pool.checkout(inp, & &1)
    assert Exception.message(error) =~ "is not a pool"
    assert_raise ArgumentError, ~r/expected a pool, got: #PID/, fn -> Pool.resize(inp, 2) end
    assert_raise ArgumentError, fn -> Pool.info(inp) end
    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
  end

  test "a pool is no interpreter" do
    pool = start_pool!(size: 1)
    assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.os_pid(pool)
    assert reason =~ "ask one of its interpreters"
    assert Snex.pyeval(pool, "return 1") == {:ok, 1}
  end

  test "messages that a pool does not expect are dropped" do
    pool = start_pool!(size: 1)

    for message <- [
          :junk,
          {{:snex_member, self()}, :ok},
          {:snex_pool, :worn, self()},
          {:snex_pool, :idle, nil},
          {:snex_proven, self()},
          :snex_retry,
          :snex_check
        ],
        do: send(pool, message)

    assert %{running: 1, failure: nil} = Pool.info(pool)
    assert Snex.pyeval(pool, "return 1") == {:ok, 1}
  end

  test "retry: has to be a number" do
    pool = start_pool!(size: 1)

    assert_raise ArgumentError, ~r/option :retry cannot be true/, fn ->
      Snex.pyeval(pool, "pass", retry: true)
    end

    assert Snex.pyeval(start_interpreter!(), "return 1", retry: 3) == {:ok, 1}
  end

  test "a stuck interpreter is replaced, and others are chosen meanwhile" do
    pool = start_pool!(size: 2, cleanup_timeout: 0)
    os_pid = Snex.pyeval!(pool, "import os; return os.getpid()")

    # In C, where nothing interrupts it.
    code = "sum(range(10 ** 15))"

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        assert {:error, %Error{code: :response_timeout}} = Snex.pyeval(pool, code, timeout: 100)
        for _ <- 1..20, do: assert(Snex.pyeval(pool, "return 1") == {:ok, 1})
        await_gone([os_pid])
        until(pool, &(&1.running == 2 and Enum.all?(&1.members, fn member -> member.calls_running == 0 end)))
      end)

    assert log =~ "is stuck"
  end
end
