defmodule Snex.NativeTest do
  # Not async: this VM becomes a node meanwhile, and panics are counted for the whole of it.
  use Snex.Case

  import Snex.Terms

  alias Snex.Native
  alias Snex.Peer

  @moduletag :capture_log

  setup_all do
    Peer.start_distribution!()
    {there, _control} = Peer.start_node!()
    {:ok, foreign: foreign(there)}
  end

  # What happens in a test must not have panicked, and its interpreters answer.
  setup do
    Process.flag(:trap_exit, true)
    panics = Native.panics()
    bystander = start_interpreter!()

    on_exit(fn -> assert Native.panics() == panics end)
    {:ok, inp: start_interpreter!(), bystander: bystander}
  end

  # Terms of another node. The module of one function is nowhere on this one.
  defp foreign(node) do
    {fun, _binding} =
      :erpc.call(node, Code, :eval_string, [
        """
        defmodule OnlyThere do
          def add(x), do: fn y -> x + y end
        end

        OnlyThere.add(1)
        """
      ])

    [
      :erpc.call(node, :erlang, :self, []),
      :erpc.call(node, :erlang, :whereis, [:init]),
      :erpc.call(node, :erlang, :make_ref, []),
      hd(:erpc.call(node, :erlang, :ports, [])),
      fun,
      :erpc.call(node, :erlang, :make_fun, [OnlyThere, :add, 1]),
      # Of a node that is gone, or never was.
      :erlang.binary_to_term(<<131, 88, 119, 9, "gone@gone", 1::32, 2::32, 3::32>>)
    ]
  end

  describe "no term makes the native code panic:" do
    @tag timeout: 300_000
    test "as a variable, and whatever it is in", %{inp: inp, foreign: foreign} do
      property =
        :proper.forall(term(foreign), fn term ->
          for opts <- [[], [encoding_opts: [binary_as: :bytes, set_as: :frozenset, atom_as: :distinct_atom]]] do
            travels(inp, term, opts)
          end

          true
        end)

      assert :proper.quickcheck(property, [:quiet, numtests: 500])
    end

    test "terms of another node come back as they are", %{inp: inp, foreign: foreign} do
      assert Snex.pyeval(inp, "return x", %{"x" => foreign}) == {:ok, foreign}
      assert Snex.pyeval(inp, "return x", %{"x" => [foreign | foreign]}) == {:ok, [foreign | foreign]}
      keys = Map.new(foreign, &{&1, &1})
      assert Snex.pyeval(inp, "return x", %{"x" => keys}) == {:ok, keys}
    end

    test "terms of another node in place of those of this one", %{inp: inp, foreign: foreign} do
      env = Snex.make_env!(inp)

      for term <- foreign, is_pid(term) do
        assert_raise ArgumentError, fn -> Native.handle_destroy(term, env.id) end
        assert_raise ArgumentError, fn -> Native.handle_keep(term, :environment, env.id) end
        assert_raise ArgumentError, fn -> Native.request_forget(term, 1, true) end
      end
    end

    test "structs with fields that they should not have", %{inp: inp} do
      for {struct, fields} <- [
            {MapSet, [:map]},
            {Serde.Binary, [:data, :as]},
            {Serde.Float, [:value]},
            {Serde.Term, [:term]},
            {Serde.Object, [:module, :class, :args]},
            {Serde.Callback, [:function]}
          ],
          field <- fields,
          junk <- junk() do
        whole = Map.put(struct.__struct__(), field, junk)
        travels(inp, whole, [])
        travels(inp, Map.delete(whole, field), [])
        travels(inp, [[whole | :improper], whole], [])
      end
    end
  end

  # The value comes back, or the call fails: for Python's reasons or for ours.
  defp travels(inp, term, opts) do
    case Snex.pyeval(inp, "return x", %{"x" => term}, [timeout: 60_000] ++ opts) do
      {:ok, _} -> :ok
      {:error, %Error{code: :python_runtime_error}} -> :ok
    end
  rescue
    error in ArgumentError -> assert Exception.message(error) =~ "cannot be encoded"
  end

  # Anything at all: what PropEr makes, what it does not, and both in each other.
  defp term(foreign) do
    odd = :proper_types.oneof(Enum.map(junk() ++ foreign, &:proper_types.exactly/1))

    :proper_types.sized(fn size ->
      :proper_types.frequency([
        {3, :proper_types.resize(size, :proper_types.any())},
        {1, odd},
        {2,
         :proper_types.resize(
           div(size, 2),
           :proper_types.list(:proper_types.oneof([odd, :proper_types.any()]))
         )},
        {1, map([odd, :proper_types.any()], fn [one, other] -> [one, other | one] end)},
        {1, map([odd, odd, :proper_types.any()], fn [one, two, any] -> %{one => two, any => {one, any}} end)},
        {1, map([odd, odd], fn [one, other] -> %{__struct__: one, map: other} end)},
        {2, map([native(), :proper_types.integer(), odd], &mangled/1)},
        {1, map([any_term()], fn [{sent, _expected}] -> [sent | sent] end)}
      ])
    end)
  end

  # A struct that has a counterpart in Python, with a field that is not what it should be.
  defp native do
    :proper_types.oneof([
      ~D[2026-11-21],
      ~T[01:02:03],
      ~N[2026-11-21 01:02:03],
      ~U[2026-11-21 01:02:03Z],
      %Duration{day: 1},
      %Decimal{},
      1..3,
      %URI{host: "x"}
    ])
  end

  defp mangled([struct, at, value]) do
    field = struct |> Map.keys() |> List.delete(:__struct__) |> then(&Enum.at(&1, rem(abs(at), length(&1))))
    Map.put(struct, field, value)
  end

  defp map(types, fun) do
    :proper_types.bind(:proper_types.fixed_list(types), &:proper_types.exactly(fun.(&1)), false)
  end

  # One of each kind, and what lies on its edges.
  defp junk do
    <<_::3, unaligned::binary-size(20), _::5>> = :binary.copy(<<0xA5>>, 21)
    <<_::3, bits::bitstring-size(77), _::bitstring>> = :binary.copy(<<0x5A>>, 21)
    local = 7

    [nil, true, :junk, :"", :żółw, MapSet, 0, 1, -1, 255, 256] ++
      [2 ** 31, 2 ** 32, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, 2 ** 64, -(2 ** 63), -(2 ** 63) - 1, 2 ** 3000] ++
      [0.0, -0.0, 1.0e308, "", "text", <<0>>, <<0xFF>>, <<1::1>>, unaligned, bits] ++
      [binary_part(String.duplicate("part", 100), 3, 70), String.duplicate("long", 50_000)] ++
      [[], [1], ~c"list", [1 | 2], [[] | []], [[1 | 2] | [3 | 4]], ["a", {1} | :b]] ++
      [
        {},
        {1},
        {nil, nil, nil, [], nil, nil},
        {nil, nil, nil, [1 | 2], nil, nil},
        {:nothing, nil, nil, [], nil, nil},
        {nil, nil, nil, [], nil, :nothing},
        {1, 2, 3, 4}
      ] ++
      [%{}, %{1 => 2}, %{"x" => 1}, %{__struct__: 1}, %{__struct__: Nothing}, %{[1 | 2] => %{}}] ++
      [self(), spawn(fn -> :ok end), make_ref(), hd(Port.list()), &String.upcase/1, fn x -> x + local end] ++
      [
        MapSet.new([1, "a", nil]),
        1..3,
        ~D[2026-11-21],
        Serde.term([1 | 2]),
        Serde.binary("b"),
        Serde.float(:nan)
      ] ++
      [Enum.reduce(1..1_000, 1, fn _, inner -> [inner | :tail] end)]
  end

  describe "arguments of a wrong type raise ArgumentError, or are an answer like any other:" do
    # What is right, for each function; `{:any, value}` where no term is wrong.
    defp valid(inp, env) do
      reference = make_ref()
      encoding = {nil, nil, nil, [], :native, :pandas}

      eval = %{
        environment: env.id,
        source: "return 1",
        file: nil,
        line: 1,
        vars: %{},
        run: :loop,
        returns: :value,
        callers: nil,
        time: nil,
        traceparent: nil,
        demand: nil,
        slot: nil
      }

      invoke = %{
        kind: :invoke,
        environment: env.id,
        root: "math",
        path: "sqrt",
        args: [16],
        kwargs: %{},
        run: :loop,
        returns: :auto,
        callers: nil,
        time: nil,
        traceparent: nil,
        demand: nil,
        slot: nil
      }

      make = %{from: [{env.id, 0, []}], vars: %{}, callers: nil, slot: nil}
      failure = %{kind: "error", reason: :erlang.term_to_binary(1), message: "m", stacktrace: ["line"]}
      none = 2 ** 63
      owner = spawn_link(fn -> Process.sleep(:infinity) end)
      pool = start_supervised!({Snex.Pool, size: 1}, id: make_ref())
      {member, slot} = Native.pool_take(pool, true)
      {:waiting, ticket, 5_000} = Native.pool_wait(pool, reference, false, nil)

      [
        interpreter_start: [Snex.NativeStart.options(owner)],
        interpreter_open: [],
        interpreter_stop: ["", 0],
        interpreter_info: [inp],
        interpreter_output: [inp],
        output_read: [inp, :stdout],
        log_read: [inp],
        print_read: [inp, none],
        struct_plain: [:no_struct],
        handle_keep: [inp, :object, none],
        handle_destroy: [inp, none],
        handle_release: [reference, inp, :object, none],
        handle_proxy: [self(), self(), reference, 0],
        handle_drop_message: [reference],
        request_eval: [inp, reference, eval, encoding],
        request_eval_dirty: [inp, reference, eval, encoding],
        request_invoke: [inp, reference, invoke, encoding],
        request_invoke_dirty: [inp, reference, invoke, encoding],
        request_make_env: [inp, reference, make, encoding],
        request_make_env_dirty: [inp, reference, make, encoding],
        request_forget: [inp, none, true],
        call_result: [inp, reference, none, {:any, 1}, encoding],
        call_result_dirty: [inp, reference, none, {:any, 1}, encoding],
        call_error: [inp, reference, none, failure],
        call_begin: [inp, owner, none],
        call_end: [inp, owner],
        stream_credit: [inp, none, 1],
        source_open: [inp],
        source_begin: [inp, none],
        source_close: [inp, none],
        source_feed: [inp, reference, none, [1], encoding],
        source_feed_dirty: [inp, reference, none, [1], encoding],
        source_end: [inp, none, failure],
        pool_open: [1, 1, nil],
        pool_once: [1],
        pool_join: [inp, 1],
        pool_leave: [inp],
        pool_member: [member],
        pool_idle: [member],
        pool_figures: [pool],
        pool_load: [pool],
        pool_take: [pool, false],
        pool_enter: [pool, member],
        pool_wait: [pool, reference, false, {:any, nil}],
        pool_forget: [ticket],
        pool_give_back: [slot],
        pool_drain: [],
        pool_close: [:erlang.term_to_binary(:reason)],
        pool_bury: [inp, "why"],
        pool_buried: [inp],
        project_read: [""],
        project_rebase: ["", ""],
        project_unbase: ["", ""],
        project_has_member: ["", ""],
        lock_locals: [""],
        lock_rebase: ["", "/a", "/b"],
        panics: [],
        resources_count: []
      ]
    end

    test "the list of functions is complete", %{inp: inp} do
      functions = for {name, arity} <- Native.__info__(:functions), name != :load, do: {name, arity}
      known = for {name, args} <- valid(inp, Snex.make_env!(inp)), do: {name, length(args)}
      assert Enum.sort(known) == Enum.sort(functions)
    end

    test "what is right is answered", %{inp: inp} do
      for {name, args} <- valid(inp, Snex.make_env!(inp)),
          do: assert(outcome(name, Enum.map(args, &bare/1)) == :answered, "#{name} is refused")
    end

    test "in every position", %{inp: inp, bystander: bystander, foreign: foreign} do
      env = Snex.make_env!(inp)

      for {name, args} <- valid(inp, env), {arg, position} <- Enum.with_index(args) do
        args = Enum.map(args, &bare/1)

        outcomes =
          for junk <- junk() ++ foreign, do: outcome(name, List.replace_at(args, position, junk))

        assert match?({:any, _}, arg) or :refused in outcomes,
               "#{name} takes anything as argument #{position}"
      end

      assert Snex.pyeval(inp, "return 42") == {:ok, 42}
      assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
    end

    test "in every field of those that are maps", %{inp: inp, bystander: bystander, foreign: foreign} do
      env = Snex.make_env!(inp)

      for {name, args} <- valid(inp, env),
          {%{} = map, position} <- Enum.with_index(args),
          {field, _} <- map do
        args = Enum.map(args, &bare/1)

        for junk <- junk() ++ foreign,
            do: outcome(name, List.replace_at(args, position, %{map | field => junk}))

        assert outcome(name, List.replace_at(args, position, Map.delete(map, field))) == :refused
      end

      assert Snex.pyeval(inp, "return 42") == {:ok, 42}
      assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
    end

    test "a project of any bytes, however deep" do
      for text <- [
            String.duplicate("[", 200_000),
            "x = " <> String.duplicate("[", 200_000),
            "x = " <> String.duplicate("{a = ", 200_000),
            String.duplicate("a.", 200_000) <> "b = 1",
            "[" <> String.duplicate("a.", 200_000) <> "b]",
            "[project]\ndependencies = [\"#{String.duplicate("(", 200_000)}\"]",
            "[project]\ndependencies = [\"a; #{String.duplicate("(", 200_000)}os_name == 'x'\"]",
            "[project]\nrequires-python = \"#{String.duplicate(">=3.10,", 50_000)}\"",
            :crypto.strong_rand_bytes(100_000)
          ] do
        assert %{problems: [_ | _]} = Native.project_read(text)
      end
    end

    defp bare({:any, value}), do: value
    defp bare(value), do: value

    # In a process of its own: some functions are about the calling process, some send it messages.
    defp outcome(name, args) do
      {pid, monitor} =
        spawn_monitor(fn ->
          try do
            apply(Native, name, args)
          rescue
            ArgumentError -> exit(:refused)
            error in ErlangError -> exit(if is_binary(error.original), do: :refused, else: error)
          else
            _answer -> exit(:answered)
          end
        end)

      assert_receive {:DOWN, ^monitor, :process, ^pid, outcome}, 60_000

      assert outcome in [:refused, :answered],
             "#{name} with #{inspect(args, limit: 20, printable_limit: 100)}: #{inspect(outcome)}"

      outcome
    end
  end

  describe "a handle" do
    test "in external format is only a number, and keeps nothing", %{inp: inp} do
      parent = self()

      {pid, monitor} =
        spawn_monitor(fn -> send(parent, {:etf, :erlang.term_to_binary(Snex.make_env!(inp).handle)}) end)

      assert_receive {:etf, etf}, 60_000
      assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 60_000
      eventually(fn -> Interpreter.info(inp).environments == 0 end)
      assert is_reference(:erlang.binary_to_term(etf))
    end

    test "that is released gives its environment back at once, and once", %{inp: inp, bystander: bystander} do
      env = Snex.make_env!(inp)
      other = Snex.make_env!(inp)
      text = :erlang.term_to_binary(env.handle)

      # One of something else, or of another interpreter.
      for {id, of} <- [{other.id, inp}, {env.id, bystander}] do
        assert_raise ArgumentError, fn -> Native.handle_release(env.handle, of, :environment, id) end
      end

      assert_raise ArgumentError, fn -> Native.handle_release(env.handle, inp, :object, env.id) end
      assert Snex.pyeval(env, "return 1") == {:ok, 1}

      for handle <- [env.handle, env.handle, :erlang.binary_to_term(text), make_ref()] do
        assert Native.handle_release(handle, inp, :environment, env.id) == :ok
        assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
      end

      assert Interpreter.info(inp).environments == 1
      assert Snex.pyeval(other, "return 1") == {:ok, 1}
    end

    test "of which only its number is left can be released, if it was kept", %{inp: inp} do
      kept = fn ->
        %{Snex.Env.disable_gc(Snex.make_env!(inp)) | handle: nil}
      end

      env = Task.await(Task.async(kept), 60_000)
      dropped = Task.await(Task.async(fn -> %{Snex.make_env!(inp) | handle: nil} end), 60_000)
      eventually(fn -> match?({:error, %Error{}}, Snex.pyeval(dropped, "return 1")) end)
      assert Snex.pyeval(env, "return 1") == {:ok, 1}
      assert Native.handle_release(make_ref(), inp, :environment, env.id) == :ok
      assert {:error, %Error{code: :env_not_found}} = Snex.pyeval(env, "return 1")
    end

    test "is of use to nobody, and harms nobody, after the interpreter was stopped", %{bystander: bystander} do
      {:ok, inp} = Interpreter.start_link()
      env = Snex.make_env!(inp)
      assert Interpreter.stop(inp) == :ok
      useless(inp, env)
      Task.await(Task.async(fn -> useless(inp, env) end), 60_000)
      assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
    end

    test "is of use to nobody, and harms nobody, after its owner was killed", %{bystander: bystander} do
      {:ok, inp} = Interpreter.start_link()
      env = Snex.make_env!(inp)
      os_pid = Interpreter.os_pid(inp)
      Process.exit(inp, :kill)
      assert_receive {:EXIT, ^inp, :killed}, 60_000
      useless(inp, env)
      Task.await(Task.async(fn -> useless(inp, env) end), 60_000)
      await_gone([os_pid])
      assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
    end

    test "works in other processes, also in many at once, and after the one that made it", %{inp: inp} do
      env = Task.await(Task.async(fn -> Snex.make_env!(inp, %{"count" => 0}) end), 60_000)

      tasks =
        for _ <- 1..20 do
          Task.async(fn ->
            for _ <- 1..50 do
              Snex.Env.disable_gc(env)
              {:ok, nil} = Snex.pyeval(env, "count += 1", timeout: 60_000)
              {:ok, copy} = Snex.make_env(from: env)
              spawn(fn -> Snex.destroy_env(copy) end)
              Snex.destroy_env(copy)
            end
          end)
        end

      Task.await_many(tasks, 60_000)
      assert Snex.pyeval(env, "return count") == {:ok, 1000}
      Snex.destroy_env(env)
      eventually(fn -> Interpreter.info(inp).environments == 0 end)
    end

    test "may be dropped, kept, destroyed and used while its interpreter goes down", %{bystander: bystander} do
      for _ <- 1..30 do
        {:ok, inp} = Interpreter.start_link()
        envs = for _ <- 1..20, do: Snex.make_env!(inp)

        tasks =
          for {env, number} <- Enum.with_index(envs) do
            Task.async(fn ->
              for _ <- 1..20 do
                case rem(number, 4) do
                  0 -> Snex.pyeval(env, "return 1")
                  1 -> Snex.Env.disable_gc(env)
                  2 -> Snex.destroy_env(env)
                  3 -> Snex.make_env(from: env)
                end
              end
            end)
          end

        Process.exit(inp, :kill)
        Task.await_many(tasks, 60_000)
        assert_receive {:EXIT, ^inp, :killed}, 60_000
      end

      assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
    end
  end

  # Everything that takes the handle, or its interpreter, after that is gone.
  defp useless(inp, env) do
    assert Native.handle_keep(inp, :environment, env.id) == :ok
    assert Native.handle_destroy(inp, env.id) == :ok
    assert Native.handle_release(env.handle, inp, :environment, env.id) == :ok
    assert Native.request_forget(inp, 1, true) == :ok
    assert Native.interpreter_info(inp) == :noproc
    assert Native.interpreter_output(inp) == ""
    assert Native.print_read(inp, 1) == :ok
    assert Native.output_read(inp, :stdout) == :ok
    assert Native.log_read(inp) == :ok
    assert Snex.Env.disable_gc(env) == env
    assert Snex.destroy_env(env) == :ok
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.pyeval(env, "return 1")
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.make_env(from: env)
    assert {:error, %Error{code: :call_failed, reason: :noproc}} = Snex.make_env(inp)
  end
end
