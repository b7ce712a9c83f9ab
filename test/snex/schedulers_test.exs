defmodule Snex.SchedulersTest do
  # No native code holds a normal scheduler, whatever it is given: each of its functions gets the largest of each argument, and
  # meanwhile the VM reports every process that has run for long without a pause.
  #
  # Not async: the VM has one system monitor, and reports on all of its processes.
  use Snex.Case

  import Snex.HeldSchedulers

  alias Snex.Money
  alias Snex.Native

  @moduletag :slow
  @moduletag :interpreter
  @moduletag timeout: 600_000

  # What holds a scheduler does so every time: one attempt without a report will do.
  @attempts 5

  @bytes 100_000_000

  # Terms that are not for Python.
  @arguments [:source, :unaligned_source, :names, :rules, :lines]

  # Terms are kept where no process has to copy them, and where Python can ask for them.
  setup_all do
    terms = for {name, make} <- terms(), do: {name, :"#{__MODULE__}.#{name}", make.()}
    for {_name, key, term} <- terms, do: :persistent_term.put(key, term)
    on_exit(fn -> for {_name, key, _term} <- terms, do: :persistent_term.erase(key) end)
    {:ok, keys: for({name, key, _term} <- terms, name not in @arguments, do: {name, key})}
  end

  # What is large in one way each.
  defp terms do
    text = fn -> :binary.copy("text", div(@bytes, 4)) end
    numbers = fn -> Enum.to_list(1..1_000_000) end

    [
      text: text,
      unaligned: fn -> unaligned(text.()) end,
      source: fn -> "return 1 #" <> text.() end,
      unaligned_source: fn -> unaligned("return 1 #" <> text.()) end,
      names: fn -> Enum.map(1..200_000, &"name#{&1}") end,
      rules: fn -> List.duplicate({"module", "function", 1}, 200_000) end,
      lines: fn -> List.duplicate("line", 200_000) end,
      bits: fn -> <<text.()::binary, 1::1>> end,
      # The largest that the VM can hold.
      integer: fn -> Bitwise.bsl(1, 4_000_000) end,
      list: numbers,
      improper: fn -> Enum.reduce(numbers.(), :tail, &[&1 | &2]) end,
      improper_beside_long: fn -> [[1 | 2] | numbers.()] end,
      many_improper: fn -> for n <- 1..200_000, do: [n | n] end,
      deep: fn -> Enum.reduce(1..500_000, [], fn _, inner -> [inner] end) end,
      tuple: fn -> List.to_tuple(numbers.()) end,
      map: fn -> Map.new(1..300_000, &{&1, &1}) end,
      key: fn -> %{unaligned(text.()) => 1} end,
      set: fn -> MapSet.new(1..300_000) end,
      function: fn ->
        held = numbers.()
        fn -> held end
      end,
      term: fn -> Serde.term(numbers.()) end,
      bytearray: fn -> Serde.binary(unaligned(text.()), :bytearray) end,
      object: fn -> Serde.object("builtins", unaligned(text.()), []) end,
      encoded: fn -> for n <- 1..20_000, do: %Money{amount: n, currency: :EUR} end,
      encoded_large: fn -> %Money{amount: unaligned(text.()), currency: :EUR} end,
      plain_structs: fn -> List.duplicate(~D[2026-01-01], 100_000) end,
      many_texts: fn -> for _ <- 1..20_000, do: unaligned(:binary.copy("text", 1_000)) end
    ]
  end

  # The same binary, at a place that is no byte of memory.
  defp unaligned(binary) do
    size = byte_size(binary)
    <<_::3, unaligned::binary-size(^size), _::5>> = <<0::3, binary::binary, 0::5>>
    unaligned
  end

  # Which functions each of the tests below drives.
  @rows [
    values: [:request_eval, :request_eval_dirty, :request_make_env, :request_make_env_dirty],
    calls: [:request_invoke, :request_invoke_dirty],
    results: [:call_result, :call_result_dirty],
    failures: [:call_error],
    callers: [:request_eval, :call_begin, :call_end],
    streams:
      [:stream_credit, :source_open, :source_begin, :source_feed, :source_feed_dirty] ++
        [:source_end, :source_close],
    code: [:request_eval, :request_eval_dirty],
    sources: [:request_make_env, :request_make_env_dirty],
    start: [:interpreter_start, :interpreter_output],
    stop: [:interpreter_stop],
    waiting: [:request_forget, :interpreter_info, :resources_count],
    output: [:output_read, :print_read, :log_read],
    handles: [:handle_keep, :handle_destroy, :handle_release, :handle_proxy, :handle_drop_message],
    pools:
      [
        :pool_open,
        :pool_once,
        :pool_join,
        :pool_leave,
        :pool_member,
        :pool_idle,
        :pool_figures,
        :pool_load,
        :pool_take,
        :pool_enter
      ] ++
        [:pool_wait, :pool_forget, :pool_give_back, :pool_drain, :pool_close, :pool_bury, :pool_buried],
    projects:
      [:project_read, :project_rebase, :project_unbase, :project_has_member] ++ [:lock_locals, :lock_rebase],
    # Without arguments, or with one that is an atom.
    small: [:interpreter_open, :struct_plain, :panics]
  ]

  test "the list of functions is complete" do
    functions = for {name, _arity} <- Native.__info__(:functions), name != :load, do: name
    assert @rows |> Keyword.values() |> Enum.concat() |> Enum.uniq() |> Enum.sort() == Enum.sort(functions)
  end

  test "what holds a scheduler is noticed" do
    [text, unaligned] = for name <- [:text, :unaligned], do: term(name)

    # For so long that waiting for a processor is only a part of it; and now and then even that is not told apart.
    assert Enum.any?(1..5, fn _ -> held(fn -> for _ <- 1..20, do: true = text == unaligned end) != [] end)
  end

  test "values: variables", %{inp: inp, keys: keys} do
    for {name, key} <- keys do
      undisturbed("#{name} of pyeval", fn ->
        {_, _} = Snex.pyeval(inp, "pass", %{"x" => :persistent_term.get(key)}, timeout: 60_000)
      end)

      undisturbed("#{name} of make_env", fn ->
        {_, _} = Snex.make_env(inp, %{"x" => :persistent_term.get(key)}, timeout: 60_000)
      end)
    end

    for name <- [:text, :unaligned] do
      undisturbed("#{name} as a name", fn ->
        {:ok, nil} = Snex.pyeval(inp, "pass", %{term(name) => 1}, timeout: 60_000)
      end)
    end

    undisturbed("bits as a name", fn ->
      assert_raise ArgumentError, fn -> Snex.pyeval(inp, "pass", %{term(:bits) => 1}) end
    end)
  end

  test "calls: arguments of functions, objects among them", %{inp: inp, keys: keys} do
    env = Snex.make_env!(inp)
    Snex.pyeval!(env, "def count(*args, **kwargs): return len(args) + len(kwargs)")

    for {name, key} <- keys do
      undisturbed("#{name} as an argument", fn ->
        {_, _} = Snex.call(env, "count", [:persistent_term.get(key)], timeout: 60_000)
      end)
    end

    for name <- [:text, :unaligned] do
      undisturbed("#{name} as an argument by name, as a path, and as a name", fn ->
        {:ok, 1} = Snex.call(env, "count", [], kwargs: [x: term(name)], timeout: 60_000)
        {:error, %Error{}} = Snex.call(env, term(name), [], timeout: 60_000)
        {:error, %Error{}} = Snex.get(env, {"sys", term(name)}, timeout: 60_000)
        {:ok, 1} = Snex.call(env, "count", [], kwargs: %{term(name) => 1}, timeout: 60_000)
      end)
    end

    undisturbed("1,000,000 arguments", fn ->
      {:ok, 1_000_000} = Snex.call(env, "count", term(:list), timeout: 60_000)
    end)

    undisturbed("200,000 arguments by name", fn ->
      {:ok, 200_000} =
        Snex.call(env, "count", [], kwargs: Map.from_keys(term(:names), 1), timeout: 60_000)
    end)

    object = Snex.call!(env, "object")

    undisturbed("200,000 times an object", fn ->
      {:ok, 200_000} = Snex.call(env, "count", List.duplicate(object, 200_000), timeout: 60_000)
    end)
  end

  test "maps: elements and results, many and large", %{inp: inp, keys: keys} do
    for {name, key} <- keys do
      undisturbed("#{name} as an element", fn ->
        [{_, _}, {:ok, 1}] =
          Snex.map(inp, "type", [:persistent_term.get(key), 1], returns: :object, timeout: 60_000) |> ones()
      end)
    end

    for opts <- [[], [returns: :object], [stream: true]] do
      undisturbed("200,000 elements, #{inspect(opts)}", fn ->
        200_000 = inp |> Snex.map("abs", 1..200_000, [timeout: 60_000] ++ opts) |> Enum.count()
      end)
    end

    undisturbed("elements that are errors", fn ->
      results = Snex.map(inp, "abs", List.duplicate("text", 20_000), timeout: 60_000)
      20_000 = Enum.count(results, &match?({:error, _error}, &1))
    end)

    undisturbed("elements that cannot be encoded", fn ->
      results = Snex.map(inp, "abs", List.duplicate("\xff", 500), timeout: 60_000)
      500 = Enum.count(results, &match?({:error, _error}, &1))
    end)
  end

  # The second result alone is known.
  defp ones([first, {:ok, %Snex.Object{}}]), do: [first, {:ok, 1}]

  test "answers: 200,000 handles, of as many objects and of one", %{inp: inp} do
    for code <- ["[object() for _ in range(200_000)]", "[object()] * 200_000"] do
      undisturbed(code, fn ->
        {:ok, objects} = Snex.pyeval(inp, "return " <> code, returns: :auto, timeout: 60_000)
        200_000 = length(objects)
        # All are dropped, and given back.
        objects = nil
        :erlang.garbage_collect()
        objects
      end)

      eventually(fn -> Interpreter.info(inp).objects == 0 end)
    end
  end

  test "results: what a function returns to Python", %{inp: inp, keys: keys} do
    for {name, key} <- keys do
      undisturbed("#{name}", fn ->
        {_, _} =
          Snex.pyeval(inp, "x = await snex.call('persistent_term', 'get', [key])", %{"key" => key},
            timeout: 60_000
          )
      end)
    end
  end

  test "callers: many processes answer calls, and many are among those of the one that asks", %{inp: inp} do
    processes = for _ <- 1..20_000, do: spawn_link(fn -> Process.sleep(:infinity) end)
    for {process, n} <- Enum.with_index(processes, 1), do: :ok = Native.call_begin(inp, process, n)

    undisturbed("1,000,000", fn ->
      Process.put(:"$callers", List.duplicate(self(), 1_000_000))
      {:ok, 1} = Snex.pyeval(inp, "return 1", timeout: 60_000)
    end)

    for process <- processes, do: :ok = Native.call_end(inp, process)
  end

  test "failures: how a function fails", %{inp: inp} do
    for name <- [:text, :unaligned] do
      undisturbed("#{name}", fn ->
        text = term(name)
        failure = %{kind: text, reason: text, message: text, stacktrace: [text]}
        :ok = Native.call_error(inp, make_ref(), 1_000_000, failure)
        {:ok, 1} = Snex.pyeval(inp, "return 1", timeout: 60_000)
      end)
    end

    undisturbed("200,000 lines", fn ->
      failure = %{
        kind: "error",
        reason: "",
        message: "",
        stacktrace: term(:lines)
      }

      :ok = Native.call_error(inp, make_ref(), 1_000_000, failure)
      {:ok, 1} = Snex.pyeval(inp, "return 1", timeout: 60_000)
    end)
  end

  test "streams: items in both directions, and how they fail", %{inp: inp, keys: keys} do
    for {name, key} <- keys do
      undisturbed("#{name} as an item", fn ->
        items = Serde.stream([:persistent_term.get(key)])
        {_, _} = Snex.pyeval(inp, "return [1 for _ in x]", %{"x" => items}, run: :thread, timeout: 60_000)
      end)
    end

    undisturbed("200,000 items", fn ->
      code = "return sum(1 for _ in x)"
      items = Serde.stream(1..200_000)
      {:ok, 200_000} = Snex.pyeval(inp, code, %{"x" => items}, run: :thread, timeout: 60_000)
      200_000 = inp |> Snex.stream("yield from range(200_000)", %{}, timeout: 60_000) |> Enum.count()
    end)

    undisturbed("1,000,000 items at once, which nobody has asked for", fn ->
      {:ok, source, _high} = Native.source_open(inp)
      {:ok, _} = Native.source_feed_dirty(inp, make_ref(), source, term(:list), {nil, nil, nil, [], nil, nil})
      :ok = Native.source_close(inp, source)
    end)

    undisturbed("a long failure", fn ->
      {:ok, source, _high} = Native.source_open(inp)
      :ok = Native.source_begin(inp, source)
      text = term(:unaligned)
      lines = term(:lines)
      :ok = Native.source_end(inp, source, %{kind: text, reason: text, message: text, stacktrace: lines})
      :ok = Native.call_end(inp, self())
      {:ok, 1} = Snex.pyeval(inp, "return 1", timeout: 60_000)
    end)
  end

  test "code: source and file", %{inp: inp} do
    for name <- [:source, :unaligned_source] do
      undisturbed("#{name}", fn ->
        {:ok, 1} = Snex.pyeval(inp, term(name), timeout: 60_000)
      end)
    end

    for name <- [:text, :unaligned] do
      undisturbed("#{name} as a file", fn ->
        {:ok, 1} =
          Snex.pyeval(inp, %Snex.Code{src: "return 1", file: term(name), line: 1}, %{}, timeout: 60_000)
      end)
    end
  end

  test "sources: environments to copy from", %{inp: inp} do
    env = Snex.make_env!(inp, %{"x" => 1})

    undisturbed("500,000 environments", fn ->
      {:ok, _env} = Snex.make_env(from: List.duplicate(env, 500_000), timeout: 60_000)
    end)

    undisturbed("200,000 names", fn ->
      {:ok, _env} = Snex.make_env(from: {env, except: term(:names)}, timeout: 60_000)
    end)

    for name <- [:text, :unaligned] do
      undisturbed("a long name", fn ->
        {:ok, _env} = Snex.make_env(from: {env, except: [term(name)]}, timeout: 60_000)
      end)
    end
  end

  test "start: settings, and where output goes" do
    undisturbed("each long", fn ->
      text = term(:unaligned)
      owner = spawn(fn -> Process.sleep(:infinity) end)
      options = Snex.NativeStart.options(owner)
      :ok = Native.interpreter_start(%{options | map_set: {text, text}, output_to: text, allow: term(:rules)})
      100_000_000 = byte_size(Native.interpreter_output(owner))
      # More than a program can be started with.
      {:error, _} = Native.interpreter_start(%{options | args: [text], env: [{text, text}]})
      Process.exit(owner, :kill)
    end)
  end

  test "stop: why" do
    undisturbed("a long reason, with callers that wait and others that come late", fn ->
      inp = stopped(20, term(:unaligned))

      for _ <- 1..20 do
        assert_receive {_reference, :down, {:stopped, why}}, 60_000
        assert byte_size(why) == @bytes
      end

      # Several, for the VM is quick to hand out memory that was in use a moment ago.
      for _ <- 1..10 do
        assert {:down, {:stopped, why}} = submit(inp)
        assert byte_size(why) == @bytes
      end

      Process.exit(inp, :kill)
    end)
  end

  test "stop: of an interpreter with many callers, while others call it" do
    undisturbed("100,000", fn ->
      inp = stopped(100_000, "")
      await_end(inp, 100_000)
      Process.exit(inp, :kill)
    end)
  end

  # An interpreter that has just been stopped, while so many requests waited, and does not know yet that Python has ended.
  defp stopped(requests, why) do
    {:ok, inp} = Interpreter.start_link(port_opts: [busy_limits_port: :disabled])
    Process.unlink(inp)
    # It does not have to read all that.
    {_, 0} = System.cmd("kill", ["-STOP", "#{Interpreter.os_pid(inp)}"])
    for _ <- 1..requests, do: {:ok, _} = submit(inp)
    :sys.replace_state(inp, fn state -> Native.interpreter_stop(why, 0) && state end)
    :sys.suspend(inp)
    inp
  end

  # Gives up what is not there, over and over, until so many requests have failed.
  defp await_end(_inp, 0), do: :ok

  defp await_end(inp, left) do
    :ok = Native.request_forget(inp, 0xFFFF_FFFF, false)

    receive do
      {_reference, :down, _why} -> await_end(inp, left - 1)
    after
      0 -> await_end(inp, left)
    end
  end

  defp submit(inp) do
    eval = %{
      environment: nil,
      source: "pass",
      file: nil,
      line: 0,
      vars: %{},
      run: :loop,
      returns: :value,
      callers: nil,
      time: nil,
      traceparent: nil,
      demand: nil,
      slot: nil
    }

    Native.request_eval(inp, make_ref(), eval, {nil, nil, nil, [], nil, nil})
  end

  test "waiting: calls that are given up, among many", %{inp: inp} do
    code = "await __import__('asyncio').sleep(600)"
    callers = for _ <- 1..5_000, do: spawn_link(fn -> Snex.pyeval(inp, code, timeout: :infinity) end)
    eventually(fn -> Interpreter.info(inp).requests_in_flight == length(callers) end)

    undisturbed("one more", fn ->
      {:error, %Error{code: :response_timeout}} = Snex.pyeval(inp, code, timeout: 10)
      %{requests_in_flight: _} = Interpreter.info(inp)
      %{pending: _} = Native.resources_count()
      :ok = Native.request_forget(inp, 0xFFFF_FFFF_FFFF_FFFF, true)
    end)
  end

  test "pools: many who wait, and who stop waiting together" do
    pool = Snex.Pools.start_alone!(size: 1, queue: [limit: 100_000, timeout: :infinity])

    undisturbed("20,000 callers", fn ->
      {:ok, callers} =
        Snex.Pool.checkout(pool, fn _py ->
          callers =
            for _ <- 1..20_000, do: spawn(fn -> Snex.pyeval(pool, "pass", %{}, timeout: :infinity) end)

          eventually(fn -> Snex.Pool.info(pool).waiting == 20_000 end)
          for caller <- Enum.take_every(callers, 2), do: Process.exit(caller, :kill)
          eventually(fn -> Snex.Pool.info(pool).waiting == 10_000 end)
          GenServer.stop(pool)
          callers
        end)

      eventually(fn -> not Enum.any?(callers, &Process.alive?/1) end)
    end)
  end

  test "output: of Python and of its children, and logs" do
    inp = start_interpreter!(output: :discard)

    undisturbed("100 MB each", fn ->
      code = """
      import logging, subprocess, sys
      print("x" * size)
      print("x" * size, file=sys.stderr)
      subprocess.run(["head", "-c", str(size), "/dev/zero"], check=True)
      logger = logging.getLogger("one")
      logger.addHandler(snex.LoggingHandler())
      logger.warning("x")
      """

      {:ok, nil} = Snex.pyeval(inp, code, %{"size" => @bytes}, timeout: 60_000)
    end)
  end

  test "handles: as many as there may be", %{inp: inp} do
    undisturbed("kept, dropped, released and destroyed", fn ->
      last = 0xFFFF_FFFF_FFFF_FFFF
      env = Snex.make_env!(inp)
      ^env = Snex.Env.disable_gc(env)
      :ok = Snex.destroy_env(env)
      :ok = Native.handle_keep(inp, :object, last)
      :ok = Native.handle_destroy(inp, last)
      :ok = Native.handle_release(make_ref(), inp, :object, last)

      for _ <- 1..20_000,
          do: Native.handle_drop_message(Native.handle_proxy(self(), self(), make_ref(), last))

      # Drops all of them.
      :erlang.garbage_collect()
    end)
  end

  test "projects: of any length" do
    for name <- [:text, :unaligned] do
      undisturbed("#{name}", fn ->
        text = term(name)
        %{problems: [_ | _]} = Native.project_read(text)
        false = Native.project_has_member(text, text)
        [] = Native.lock_locals(text)
        for args <- [["", text], [text, ""]], do: apply(Native, :project_rebase, args)
        for args <- [["", text], [text, ""]], do: apply(Native, :project_unbase, args)
        _lock = Native.lock_rebase(text, text, text)
      end)
    end
  end

  test "small: those without an argument that could be large", %{inp: inp} do
    undisturbed("all", fn ->
      :noproc = Native.interpreter_open()
      :ok = Native.struct_plain(:"#{String.duplicate("x", 255)}")
      0 = Native.panics()
    end)

    assert Snex.pyeval(inp, "return 42") == {:ok, 42}
  end

  defp term(name), do: :persistent_term.get(:"#{__MODULE__}.#{name}")

  # Runs `fun` until no process has held a scheduler meanwhile.
  defp undisturbed(what, fun, attempts \\ @attempts) do
    case held(fun) do
      [] -> :ok
      _held when attempts > 1 -> undisturbed(what, fun, attempts - 1)
      held -> flunk("#{what}: a scheduler was held, in each of #{@attempts} attempts: #{inspect(held)}")
    end
  end
end
