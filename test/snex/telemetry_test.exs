defmodule Snex.TelemetryTest do
  # Not async: while there is a module `:telemetry`, all calls in this VM emit events.
  use Snex.Case

  # There are no packages from Hex here. This stands for the `:telemetry` application: it sends the events to the process
  # that is registered as `Snex.TelemetryTest`.
  @recorder (quote do
               @moduledoc false
               def execute(event, measurements, metadata) do
                 test = Process.whereis(Snex.TelemetryTest)
                 # What ends after the test is nobody's concern.
                 if test, do: send(test, {event, measurements, metadata})
                 :ok
               end
             end)

  setup context do
    if context[:present] do
      Process.register(self(), __MODULE__)
      Module.create(:telemetry, @recorder, Macro.Env.location(__ENV__))

      on_exit(fn ->
        :code.purge(:telemetry)
        :code.delete(:telemetry)
        :code.purge(:telemetry)
      end)
    end

    :ok
  end

  # In processes of their own: nobody but the handler hears of them.
  defp call(fun), do: Task.await(Task.async(fun), :infinity)

  describe "with :telemetry present" do
    @describetag :present

    test "[:snex, :call, :start] and [:snex, :call, :stop] are emitted around each pyeval" do
      inp = start_interpreter!()
      assert call(fn -> Snex.pyeval(inp, "return 1") end) == {:ok, 1}

      assert_received {[:snex, :call, :start], %{system_time: _, monotonic_time: started}, metadata}

      assert %{function: :pyeval, interpreter: ^inp, env: nil, telemetry_span_context: context} = metadata

      assert_received {[:snex, :call, :stop], %{duration: duration, monotonic_time: stopped}, metadata}

      assert %{
               function: :pyeval,
               interpreter: ^inp,
               env: nil,
               telemetry_span_context: ^context,
               error: nil
             } = metadata

      assert stopped - started == duration
      refute_received {[:snex, :call, _], _, _}
    end

    test "[:snex, :pool, :queue] is emitted for a call that waits, and [:snex, :pool, :overload] if it does so in vain" do
      pool = Snex.Pools.start_pool!(size: 1)
      assert call(fn -> Snex.pyeval(pool, "return 1") end) == {:ok, 1}
      refute_received {[:snex, :pool, _], _, _}
      running = Snex.Pools.hold(pool)
      assert {:error, error} = call(fn -> Snex.pyeval(pool, "return 1", timeout: 10) end)

      assert_received {[:snex, :pool, :queue], %{duration: duration, waiting: 0},
                       %{pool: ^pool, error: ^error}}

      assert_received {[:snex, :pool, :overload], %{duration: ^duration}, %{pool: ^pool, error: ^error}}
      waiting = Snex.Pools.begin(pool)
      Snex.Pools.await_waiting(pool, 1)
      assert {:ok, _} = Snex.Pools.let_go(running)
      assert {:ok, _} = waiting |> Map.merge(Snex.Pools.await_running(waiting)) |> Snex.Pools.let_go()
      assert_received {[:snex, :pool, :queue], %{duration: _, waiting: 0}, %{pool: ^pool, error: nil}}
      refute_received {[:snex, :pool, :overload], _, _}
    end

    test "[:snex, :pool, :recycle] is emitted when an interpreter has been replaced" do
      pool = Snex.Pools.start_pool!(size: 1, label: :mine)
      [old] = Snex.Pools.running(pool)
      assert {:ok, 1} = Snex.pyeval(pool, "return 1")
      assert :ok = Snex.Pool.restart(pool)
      [new] = Snex.Pools.running(pool)

      assert_received {[:snex, :pool, :recycle], %{duration: _, calls: 1, age: _, monotonic_time: _},
                       metadata}

      assert metadata == %{pool: pool, name: nil, interpreter: old, substitute: new, reason: :restart}
    end

    test "they name the environment and its interpreter, and the error that is returned" do
      inp = start_interpreter!()
      {:ok, env} = Snex.make_env(inp)
      assert {:error, error} = call(fn -> Snex.pyeval(env, "return 1 / 0") end)
      assert_received {[:snex, :call, :start], _, %{function: :pyeval, env: ^env, interpreter: ^inp}}
      assert_received {[:snex, :call, :stop], _, %{function: :pyeval, env: ^env, error: ^error}}
    end

    test "[:snex, :call, :start] and [:snex, :call, :stop] are emitted around each make_env" do
      inp = start_interpreter!()
      {:ok, env} = call(fn -> Snex.make_env(inp, %{"x" => 1}) end)
      assert_received {[:snex, :call, :start], _, %{function: :make_env, interpreter: ^inp, env: nil}}
      assert_received {[:snex, :call, :stop], _, %{function: :make_env, error: nil}}
      # Held until here: the event must not be what keeps it alive.
      assert %Snex.Env{} = env
    end

    test "[:snex, :call, :start] and [:snex, :call, :stop] are emitted around each call by name, and each look" do
      inp = start_interpreter!()
      env = Snex.make_env!(inp)
      flush()

      for {function, where, call} <- [
            {:call, inp, fn -> {Snex.call(inp, "len", ["x"]), nil} end},
            {:call, env, fn -> {Snex.call(env, "len", ["x"]), nil} end},
            {:get, inp, fn -> {Snex.get(inp, "os.sep"), nil} end},
            {:call, env,
             fn -> with {:error, error} = result <- Snex.call(env, "nothing"), do: {result, error} end}
          ] do
        {_result, error} = call(call)
        env_id = if where == inp, do: nil, else: where
        assert_received {[:snex, :call, :start], _, %{function: ^function, interpreter: ^inp, env: ^env_id}}

        assert_received {[:snex, :call, :stop], %{duration: _},
                         %{function: ^function, env: ^env_id, error: ^error}}

        refute_received {[:snex, :call, _], _, _}
      end
    end

    test "an object's functions emit them as well" do
      inp = start_interpreter!()
      object = Snex.call!(inp, "list", [[1]], returns: :object)
      flush()
      assert call(fn -> Snex.Object.length(object) end) == {:ok, 1}
      assert_received {[:snex, :call, :start], _, %{function: :call, interpreter: ^inp}}
      assert_received {[:snex, :call, :stop], _, %{error: nil}}
      assert call(fn -> Snex.Object.get(object, "__doc__") end) |> elem(0) == :ok
      assert_received {[:snex, :call, :start], _, %{function: :get, interpreter: ^inp}}
      assert_received {[:snex, :call, :stop], _, %{error: nil}}
      other = start_interpreter!()
      assert_raise ArgumentError, fn -> Snex.call(other, "len", [object]) end
      assert_received {[:snex, :call, :exception], _, %{function: :call, kind: :error}}
    end

    defp flush do
      receive do
        {[:snex | _], _, _} -> flush()
      after
        0 -> :ok
      end
    end

    test "[:snex, :call, :exception] is emitted when a call raises" do
      inp = start_interpreter!()
      assert_raise ArgumentError, fn -> Snex.pyeval(inp, "return 1", %{x: 1}) end
      assert_received {[:snex, :call, :start], _, %{telemetry_span_context: context}}
      assert_received {[:snex, :call, :exception], %{duration: _, monotonic_time: _}, metadata}
      assert %{telemetry_span_context: ^context, function: :pyeval, interpreter: ^inp} = metadata
      assert %{kind: :error, reason: %ArgumentError{}, stacktrace: [_ | _]} = metadata
      refute_received {[:snex, :call, :stop], _, _}
    end

    test "[:snex, :stream, :start] and [:snex, :stream, :stop] are emitted around each enumeration" do
      inp = start_interpreter!()
      env = Snex.make_env!(inp)
      object = Snex.call!(env, "list", [[1, 2]], returns: :object)
      flush()

      for {stream, where, take, items, halted} <- [
            {Snex.stream(inp, "yield from range(1000)"), nil, 2_000, 1_000, false},
            {Snex.stream(env, {"iter", [[1, 2]]}), env, 3, 2, false},
            {Snex.Object.stream(object), nil, 3, 2, false},
            {Snex.stream(env, "while True: yield 1", demand: 1), env, 5, 5, true}
          ] do
        refute_received {[:snex, :stream, _], _, _}
        call(fn -> Enum.take(stream, take) end)
        assert_received {[:snex, :stream, :start], %{system_time: _, monotonic_time: started}, metadata}

        assert %{function: :stream, interpreter: ^inp, env: ^where, telemetry_span_context: context} =
                 metadata

        assert_received {[:snex, :stream, :stop], measurements, stopped}
        assert %{items: ^items, duration: duration, monotonic_time: ended} = measurements
        assert ended - started == duration
        assert %{telemetry_span_context: ^context, env: ^where, error: nil, halted: ^halted} = stopped
      end

      refute_received {[:snex, :stream, _], _, _}
    end

    test "[:snex, :stream, :stop] has the error that is raised, and says when the consumer raises" do
      inp = start_interpreter!()
      error = call(fn -> catch_error(inp |> Snex.stream("yield 1; yield 1 / 0") |> Enum.to_list()) end)
      assert %Error{exception: %{type: "ZeroDivisionError"}} = error
      assert_received {[:snex, :stream, :start], _, _}
      assert_received {[:snex, :stream, :stop], %{items: 1}, %{error: ^error, halted: false}}

      call(fn ->
        catch_error(inp |> Snex.stream("yield 1; yield 2", demand: 1) |> Enum.each(fn _ -> raise "mine" end))
      end)

      assert_received {[:snex, :stream, :start], _, _}
      assert_received {[:snex, :stream, :stop], %{items: 1}, %{error: nil, halted: true}}
      refute_received {[:snex, :stream, _], _, _}
    end

    test "[:snex, :stream, :exception] is emitted when a stream cannot begin" do
      inp = start_interpreter!()
      assert_raise ArgumentError, fn -> Enum.to_list(Snex.stream(inp, "yield 1", %{x: 1})) end
      assert_received {[:snex, :stream, :start], _, %{telemetry_span_context: context}}
      assert_received {[:snex, :stream, :exception], %{items: 0, duration: _}, metadata}

      assert %{telemetry_span_context: ^context, kind: :error, reason: %ArgumentError{}, stacktrace: [_ | _]} =
               metadata

      refute_received {[:snex, :stream, :stop], _, _}
    end

    test "[:snex, :map, :start] and [:snex, :map, :stop] are emitted around each enumeration" do
      inp = start_interpreter!()
      env = Snex.make_env!(inp)
      flush()
      bad = fn -> Stream.map(1..9, &if(&1 == 5, do: raise("mine"), else: &1)) end

      for {fun, where, results, errors, halted} <- [
            {fn -> Snex.map(inp, "abs", 1..1_000) end, nil, 1_000, 0, false},
            {fn -> Snex.map(env, "abs", [1, nil, 2], stream: true) |> Enum.to_list() end, env, 3, 1, false},
            {fn -> Snex.map(env, "abs", [], concurrency: 2) end, env, 0, 0, false},
            {fn -> Snex.map(env, "abs", 1..9, concurrency: 2) end, env, 9, 0, false},
            {fn -> Snex.map(env, "abs", 1..9, demand: 1, stream: true) |> Enum.take(3) end, env, 3, 0, true},
            {fn -> catch_error(Snex.map(env, "abs", bad.(), demand: 1)) end, env, 4, 0, true},
            {fn -> catch_error(Snex.map!(env, "abs", [1, nil], demand: 1)) end, env, 2, 1, true}
          ] do
        call(fun)
        assert_received {[:snex, :map, :start], %{system_time: _, monotonic_time: started}, metadata}
        assert %{function: :map, interpreter: ^inp, env: ^where, telemetry_span_context: context} = metadata
        assert_received {[:snex, :map, :stop], measurements, stopped}

        assert %{elements: ^results, errors: ^errors, duration: duration, monotonic_time: ended} =
                 measurements

        assert ended - started == duration
        assert %{telemetry_span_context: ^context, env: ^where, halted: ^halted} = stopped
        refute_received {[:snex, _, _], _, _}
      end
    end

    test "[:snex, :interpreter, :start] is emitted when Python is ready, [:snex, :interpreter, :stop] when it is stopped" do
      {:ok, inp} = Interpreter.start_link(label: "mine")
      os_pid = Interpreter.os_pid(inp)
      # Interpreters of tests that ended a moment ago may still be stopping.
      assert_received {[:snex, :interpreter, :start], measurements, %{interpreter: ^inp} = metadata}
      assert metadata == %{interpreter: inp, os_pid: os_pid, label: "mine"}
      assert %{system_time: _, monotonic_time: _, duration: duration} = measurements
      assert duration > 0

      Interpreter.stop(inp)

      assert_received {[:snex, :interpreter, :stop], %{duration: uptime, monotonic_time: _},
                       %{interpreter: ^inp} = metadata}

      assert metadata == %{interpreter: inp, os_pid: os_pid, label: "mine", reason: :normal}
      assert uptime > 0
    end

    test "[:snex, :interpreter, :stop] has the reason when Python ends by itself" do
      Process.flag(:trap_exit, true)
      {:ok, inp} = Interpreter.start_link()
      Snex.pyeval(inp, "import os; os._exit(3)")
      assert_receive {:EXIT, ^inp, reason}, 60_000
      assert_received {[:snex, :interpreter, :stop], _, %{interpreter: ^inp, reason: ^reason}}
      assert %Error{code: :interpreter_exited} = reason
    end

    test "an interpreter that does not start emits no event" do
      Process.flag(:trap_exit, true)
      assert {:error, _error} = Interpreter.start_link(init_script: "1 / 0")
      refute_received {[:snex, :interpreter, :start], _, _}
      refute_received {[:snex, :interpreter, :stop], _, %{reason: %Error{}}}
    end
  end

  test "without :telemetry, calls and interpreters work as ever" do
    refute Code.ensure_loaded?(:telemetry)
    {:ok, inp} = Interpreter.start_link()
    assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    assert {:ok, _env} = Snex.make_env(inp)
    assert Interpreter.stop(inp) == :ok
  end

  test "Snex.Telemetry documents each event" do
    {:docs_v1, _, :elixir, _, %{"en" => text}, _, _} = Code.fetch_docs(Snex.Telemetry)
    documented = for [_, event] <- Regex.scan(~r/^### `(.*)`$/m, text), do: event

    assert documented == [
             "[:snex, :call, :start]",
             "[:snex, :call, :stop]",
             "[:snex, :call, :exception]",
             "[:snex, :stream, :start]",
             "[:snex, :stream, :stop]",
             "[:snex, :stream, :exception]",
             "[:snex, :map, :start]",
             "[:snex, :map, :stop]",
             "[:snex, :pool, :queue]",
             "[:snex, :pool, :overload]",
             "[:snex, :pool, :forward]",
             "[:snex, :pool, :recycle]",
             "[:snex, :interpreter, :start]",
             "[:snex, :interpreter, :stop]"
           ]
  end
end
