defmodule Snex.ObjectTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Object

  doctest Snex.Object

  @classes """
  import asyncio, threading, weakref
  class Thing:
      def __init__(self, **fields): self.__dict__.update(fields)
      def same(self, other): return self is other
      def __call__(self, *args, **kwargs): return args, kwargs
  made = weakref.WeakSet()
  def thing(**fields):
      new = Thing(**fields)
      made.add(new)
      return new
  def same(one, other): return one is other
  """

  setup do
    {:ok, inp: start_interpreter!(init_script: @classes)}
  end

  defp thing(where, fields \\ []), do: Snex.call!(where, "thing", [], kwargs: fields)

  # Python keeps nothing for the VM any more. PyPy collects only when it is asked to.
  defp assert_nothing_kept(inp) do
    code = "import gc; gc.collect(); from snex._eval import objects; return len(objects.table), len(made)"
    eventually(fn -> Snex.pyeval(inp, code, timeout: 60_000) == {:ok, {0, 0}} end)
    eventually(fn -> Interpreter.info(inp).objects == 0 end)
  end

  # In a process of its own: when it ends, so do its references.
  defp apart(fun), do: Task.await(Task.async(fn -> fun.() && nil end), :infinity)

  describe "a handle" do
    test "shows its type and its number, which are all that it tells", %{inp: inp} do
      object = thing(inp)
      assert inspect(object) == "#Snex.Object<Thing #{object.id}>"
      assert Object.type(object) == "Thing"

      assert inspect(Snex.call!(inp, "types.SimpleNamespace", [])) =~
               ~r/^#Snex.Object<types.SimpleNamespace \d+>$/

      assert object.interpreter == inp
    end

    test "can be inspected while its interpreter is stuck, and when it is gone", %{inp: inp} do
      object = thing(inp)
      shown = inspect(object)
      {_, 0} = System.cmd("kill", ["-STOP", "#{Interpreter.os_pid(inp)}"])
      assert inspect(object) == shown
      assert Object.type(object) == "Thing"
      {_, 0} = System.cmd("kill", ["-CONT", "#{Interpreter.os_pid(inp)}"])
      Interpreter.stop(inp)
      assert inspect(object) == shown
    end

    test "is the same object, at any depth of variables, arguments and receivers", %{inp: inp} do
      env = Snex.make_env!(inp)
      object = thing(env)
      assert Snex.call(env, "same", [object, object]) == {:ok, true}
      assert Object.call(object, "same", [object]) == {:ok, true}
      assert Snex.call(env, "same", [], kwargs: [one: object, other: object]) == {:ok, true}
      Snex.pyeval!(env, "mine = x", %{"x" => object})

      for {deep, code} <- [
            {object, "x"},
            {[[[object]]], "x[0][0][0]"},
            {{1, {object}}, "x[1][0]"},
            {%{"a" => %{1 => object}}, "x['a'][1]"},
            {%{object => 1}, "list(x)[0]"},
            {%{{object, 1} => 2}, "list(x)[0][0]"},
            {MapSet.new([object]), "list(x)[0]"},
            {Serde.object("types", "SimpleNamespace", []), "mine"},
            {Serde.object("builtins", "list", [[object]]), "x[0]"},
            {%Snex.Money{amount: object, currency: :EUR}, "x[0]"},
            {%Snex.Basket{items: [object]}, "x['items'][0]"},
            {%Snex.Tagged{value: object}, "x['value']"},
            {Enum.reduce(1..20_000, object, fn _, inner -> [inner] end), "deep(x)"}
          ] do
        code = "def deep(x):\n  while type(x) is list: x = x[0]\n  return x\nreturn #{code} is mine"
        assert Snex.pyeval(env, code, %{"x" => deep}) == {:ok, true}
        assert {:ok, made} = Snex.make_env(inp, %{"x" => deep, "mine" => object})
        assert Snex.pyeval(made, code) == {:ok, true}
      end
    end

    test "comes back as it went out", %{inp: inp} do
      object = thing(inp)
      assert {:ok, again} = Snex.pyeval(inp, "return x", %{"x" => object}, returns: :auto)
      # Another handle of the same object.
      assert {again.id, again.type} == {object.id, object.type}
      assert Snex.call(inp, "same", [object, again]) == {:ok, true}
      assert Interpreter.info(inp).objects == 1
      :ok = Object.release(again)
      assert Object.call(object, "same", [object]) == {:ok, true}
      assert Interpreter.info(inp).objects == 1
    end

    test "of the same object twice is one object with two handles", %{inp: inp} do
      assert {:ok, {one, two, [three]}} = Snex.pyeval(inp, "t = thing(); return t, t, [t]", returns: :auto)
      assert one.id == two.id and two.id == three.id
      assert Interpreter.info(inp).objects == 1
      table = "from snex._eval import objects; return [n + 1 for n in objects.table._more.values()]"
      assert Snex.pyeval(inp, table) == {:ok, [3]}
      assert Object.release(one) == :ok
      assert Object.release(one) == :ok
      eventually(fn -> Snex.pyeval(inp, table) == {:ok, [2]} end)
      assert {:error, %Error{code: :object_not_found}} = Object.repr(one)
      assert {:ok, _} = Object.repr(two)
      Object.release(two)
      assert {:ok, _} = Object.repr(three)
      Object.release(three)
      assert Interpreter.info(inp).objects == 0
      assert_nothing_kept(inp)
    end

    test "can be a key, and a member of a set", %{inp: inp} do
      [one, two] = for _ <- 1..2, do: thing(inp)
      map = %{one => 1, two => 2}
      assert map[one] == 1 and map[two] == 2
      assert MapSet.size(MapSet.new([one, two, one])) == 2
      assert {:ok, back} = Snex.pyeval(inp, "return {x: 1, 'k': {x}}", %{"x" => one}, returns: :auto)
      assert [%Object{} = member] = MapSet.to_list(back["k"])
      assert [%Object{} = key] = for({%Object{} = key, 1} <- back, do: key)
      assert {key.id, member.id} == {one.id, one.id}
    end

    test "inside of a term goes out and comes back alive", %{inp: inp} do
      object = thing(inp)
      assert {:ok, {^object, 1}} = Snex.pyeval(inp, "return x", %{"x" => Serde.term({object, 1})})

      assert {:ok, [{^object, :a} | ^object]} =
               Snex.pyeval(inp, "return x", %{"x" => [{object, :a} | object]})

      {:ok, {back, 1}} = Snex.pyeval(inp, "return x", %{"x" => Serde.term({object, 1})})
      assert Object.call(back, "same", [object]) == {:ok, true}
    end

    test "in another interpreter raises an ArgumentError that names both, and disturbs nothing", %{inp: inp} do
      other = start_interpreter!()
      object = thing(inp)
      env = Snex.make_env!(other)

      for call <- [
            fn -> Snex.pyeval(other, "pass", %{"x" => object}) end,
            fn -> Snex.pyeval(env, "pass", %{"x" => [%{"deep" => {object}}]}) end,
            fn -> Snex.make_env(other, %{"x" => object}) end,
            fn -> Snex.call(other, "len", [object]) end,
            fn -> Snex.call(env, "dict", [], kwargs: [x: object]) end,
            fn -> Snex.call(env, "len", [%Snex.Money{amount: object, currency: :EUR}]) end
          ] do
        error = assert_raise ArgumentError, call
        assert error.message =~ inspect(object)
        assert error.message =~ "stays in the interpreter #{inspect(inp)}"
        assert error.message =~ "cannot be used in #{inspect(other)}"
        assert error.message =~ "Snex.Object.copy/2"
      end

      # Of a function that Python calls.
      :persistent_term.put({__MODULE__, inp}, object)
      call = "return await snex.call('persistent_term', 'get', [key])"
      assert {:error, error} = Snex.pyeval(other, call, %{"key" => {__MODULE__, inp}})
      assert error.exception.type == "ElixirError"
      assert error.reason =~ "cannot be used in #{inspect(other)}"
      assert {:ok, %Object{}} = Snex.pyeval(inp, call, %{"key" => {__MODULE__, inp}}, returns: :auto)
      :persistent_term.erase({__MODULE__, inp})

      assert Snex.call(other, "len", ["x"]) == {:ok, 1}
      assert Object.call(object, "same", [object]) == {:ok, true}
      assert Interpreter.info(other).requests_in_flight == 0
    end
  end

  describe "what an object can be asked" do
    test "calls itself, or what a path leads to, with all the options", %{inp: inp} do
      object = thing(inp, inner: %{"a" => 1})
      assert Object.call(object, [1]) == {:ok, {{1}, %{}}}
      assert Object.call(object, [1], kwargs: [x: 2]) == {:ok, {{1}, %{"x" => 2}}}
      assert Object.call(object, nil, [1], kwargs: [x: 2]) == {:ok, {{1}, %{"x" => 2}}}
      assert Object.call(object, "inner.keys", []) |> elem(0) == :ok
      assert Object.call(object, "inner.get", ["a"], run: :thread) == {:ok, 1}
      assert Object.call!(object, "inner.get", ["a"]) == 1
      assert Object.call!(object, [1]) == {{1}, %{}}
      assert Object.call!(object, nil, [1], returns: :value) == {{1}, %{}}
      assert_raise Error, fn -> Object.call!(object, "nothing", []) end
    end

    test "gets and puts attributes", %{inp: inp} do
      object = thing(inp, x: [1])
      assert Object.get(object, "x") == {:ok, [1]}
      assert {:ok, %Object{type: "list"} = list} = Object.get(object, "x", returns: :object)
      assert Object.call(list, "append", [2]) == {:ok, nil}
      assert Object.get!(object, "x") == [1, 2]
      assert Object.put(object, "y", object) == :ok
      assert Object.put!(object, "y.y.z", 3) == :ok
      assert Object.get(object, "z") == {:ok, 3}
      assert {:error, %Error{reason: reason}} = Object.get(object, "y.zz")
      assert reason == "'y.zz' leads nowhere: 'Thing' object has no attribute 'zz'. Did you mean: 'z'?"
      assert {:error, %Error{}} = Object.put(list, "x", 1)
      assert_raise Error, fn -> Object.put!(list, "x", 1) end
    end

    test "gets and puts items, also with Access", %{inp: inp} do
      object = Snex.call!(inp, "dict", [], kwargs: [a: 1], returns: :object)
      assert Object.item(object, "a") == {:ok, 1}
      assert Object.item!(object, "a") == 1
      assert object["a"] == 1
      assert object["b"] == nil
      assert Access.fetch(object, "b") == :error
      assert Object.put_item(object, {1, 2}, object) == :ok
      assert {:ok, %Object{id: id}} = Object.item(object, {1, 2}, returns: :object)
      assert id == object.id
      assert {:error, %Error{exception: %{type: "KeyError"}}} = Object.item(object, "b")
      list = Snex.call!(inp, "list", [[1, 2]], returns: :object)
      assert {list[0], list[-1], list[2]} == {1, 2, nil}
      assert get_in(list, [0]) == 1
      # Neither a key nor an index.
      assert_raise Error, ~r/TypeError/, fn -> list["a"] end
      assert_raise ArgumentError, ~r/Snex.Object.put_item/, fn -> put_in(list[0], 5) end
      assert_raise ArgumentError, ~r/Snex.Object.put_item/, fn -> pop_in(list[0]) end
      Object.put_item!(list, 0, 5)
      assert list[0] == 5
      assert_raise Error, fn -> Object.put_item!(list, 9, 5) end
      assert_raise Error, fn -> Object.item!(list, 9) end
    end

    test "value, repr, str, type and length", %{inp: inp} do
      object = Snex.call!(inp, "range", [3], returns: :object)
      assert Object.repr(object) == {:ok, "range(0, 3)"}
      assert Object.repr!(object) == Object.str!(object)
      assert to_string(object) == "range(0, 3)"
      assert "#{object}" == "range(0, 3)"
      assert Object.length(object) == {:ok, 3}
      assert Object.length!(object) == 3
      assert Object.type(object) == "range"
      assert Object.value(object) == {:ok, 0..2}
      # This one has no form in Elixir.
      assert {:error, %Error{reason: reason}} = Object.value(thing(inp))
      assert reason =~ "Thing"
      assert_raise Error, fn -> Object.value!(thing(inp)) end
      assert Object.value(Snex.call!(inp, "list", [object], returns: :object)) == {:ok, [0, 1, 2]}
      assert {:error, %Error{exception: %{type: "TypeError"}}} = Object.length(thing(inp))
      assert_raise Error, fn -> Object.length!(thing(inp)) end
    end

    test "with a path that is none raises an ArgumentError", %{inp: inp} do
      object = thing(inp)

      for path <- ["", "a.", 1, :a, {"os", "path"}],
          call <- [&Object.get(object, &1), &Object.put(object, &1, 1), &Object.call(object, &1, [], [])] do
        assert_raise ArgumentError, ~r/expected a name, or names joined by dots/, fn -> call.(path) end
      end

      assert_raise ArgumentError, ~r/expected a list of arguments/, fn -> Object.call(object, "same", %{}) end
      assert_raise ArgumentError, ~r/kwargs: \[x: \.\.\.\]/, fn -> Object.call(object, [1], x: 1) end
    end

    test "copy makes another one in another interpreter", %{inp: inp} do
      other = start_interpreter!(init_script: @classes)
      object = Snex.call!(inp, "collections.OrderedDict", [[[1, {"a", nil}]]], returns: :object)
      assert {:ok, %Object{interpreter: ^other} = copy} = Object.copy(object, other)
      assert Object.value(copy) == {:ok, %{1 => {"a", nil}}}
      assert copy.type == "collections.OrderedDict"
      Object.put_item!(copy, 2, 3)
      assert Object.length(object) == {:ok, 1}
      # An instance of a class that the environment there has.
      env = Snex.make_env!(other)
      assert {:ok, %Object{} = there} = Object.copy(thing(inp, x: 1), env)
      assert Object.get(there, "x") == {:ok, 1}
      assert Object.copy!(copy, inp).interpreter == inp
      # Large buffers.
      code =
        "import pickle\nclass B:\n  def __init__(s, b): s.b = b\n  def __reduce_ex__(s, p): return bytearray, (pickle.PickleBuffer(s.b),)"

      env = Snex.make_env!(inp)
      Snex.pyeval!(env, code)
      large = Snex.call!(env, "B", [Serde.binary(:binary.copy("x", 5_000_000), :bytearray)])
      assert {:ok, %Object{type: "bytearray"} = bytes} = Object.copy(large, other)
      assert Object.length(bytes) == {:ok, 5_000_000}
    end

    test "copy of what cannot be pickled, or to nobody, is an error", %{inp: inp} do
      other = start_interpreter!()

      assert {:error, %Error{code: :python_runtime_error}} =
               Object.copy(Snex.call!(inp, "threading.Lock"), other)

      assert_raise Error, fn -> Object.copy!(Snex.call!(inp, "threading.Lock"), other) end
      # Its class is not there.
      assert {:error, %Error{exception: %{type: "AttributeError"}}} = Object.copy(thing(inp), other)
      assert {:error, %Error{code: :call_failed, reason: :noproc}} = Object.copy(thing(inp), :nobody_here)
    end
  end

  describe "a handle that leads nowhere is an error of the one call:" do
    defp refused(object, inp) do
      for call <- [
            fn -> Object.repr(object) end,
            fn -> Object.value(object) end,
            fn -> Object.get(object, "x") end,
            fn -> Object.call(object, []) end,
            fn -> Object.item(object, 1) end,
            fn -> Object.put(object, "x", 1) end,
            fn -> Object.copy(object, inp) end,
            fn -> Snex.pyeval(inp, "return 1", %{"x" => [object]}) end,
            fn -> Snex.make_env(inp, %{"x" => object}) end,
            fn -> Snex.call(inp, "len", [object]) end,
            fn -> Snex.call(inp, "dict", [], kwargs: [x: object]) end
          ] do
        call.()
      end
      |> tap(fn _ -> assert Snex.call(inp, "len", ["x"], timeout: 60_000) == {:ok, 1} end)
    end

    test "released", %{inp: inp} do
      object = thing(inp)
      assert Object.release(object) == :ok
      assert Object.release(object) == :ok

      for result <- refused(object, inp) do
        assert {:error, %Error{code: :object_not_found, reason: reason} = error} = result
        assert reason == "#{inspect(object)} was released"
        assert Exception.message(error) =~ "was released"
      end

      assert_raise Error, ~r/was released/, fn -> to_string(object) end
      assert_raise Error, ~r/was released/, fn -> object["x"] end
      assert Object.disable_gc(object) == object
      assert_nothing_kept(inp)
    end

    test "of an interpreter that is gone", %{inp: inp} do
      object = thing(inp)
      Interpreter.stop(inp)

      for call <- [
            &Object.repr/1,
            &Object.value/1,
            &Object.get(&1, "x"),
            &Object.call(&1, []),
            &Object.put(&1, "x", 1),
            &Object.copy(&1, inp)
          ] do
        assert {:error, %Error{code: :object_not_found, reason: reason}} = call.(object)
        assert reason =~ "its interpreter #{inspect(inp)} has ended"
      end

      assert Object.release(object) == :ok
      assert Object.disable_gc(object) == object
      other = start_interpreter!()
      assert_raise ArgumentError, fn -> Snex.call(other, "len", [object]) end
    end

    test "with a number that no object has", %{inp: inp} do
      object = thing(inp)

      for handle <- [
            make_ref(),
            :erlang.binary_to_term(<<131, 90, 1::16, 119, 9, "gone@gone", 1::32, 3::32>>)
          ],
          id <- [2 ** 40, 0, -1] do
        for result <- refused(%{object | handle: handle, id: id}, inp) do
          assert {:error, %Error{code: :object_not_found, reason: reason}} = result
          assert reason =~ "no object with id #{id}"
        end
      end
    end

    test "with the number of another object, or another handle, or fields that are none", %{inp: inp} do
      other = start_interpreter!(init_script: @classes)
      [one, two] = for _ <- 1..2, do: thing(inp)
      env = Snex.make_env!(inp)
      foreign = thing(other)

      forged =
        [
          %{one | id: two.id},
          %{one | handle: two.handle},
          %{one | handle: env.handle},
          %{one | handle: foreign.handle},
          %{one | handle: foreign.handle, id: foreign.id},
          %{foreign | interpreter: inp},
          %{one | id: 2 ** 64},
          %{one | id: "1"},
          %{one | id: nil},
          %{one | handle: nil},
          %{one | handle: self()}
        ]

      for object <- forged, call <- [&Object.repr/1, &Object.get(&1, "x"), &Snex.call(inp, "len", [&1])] do
        assert_raise ArgumentError, ~r/cannot be encoded for Python/, fn -> call.(object) end
      end

      for object <- [%{one | interpreter: nil}, %{one | interpreter: :nobody_here}] do
        assert {:error, %Error{code: :object_not_found}} = Object.repr(object)
        assert_raise ArgumentError, ~r/cannot be encoded/, fn -> Snex.call(inp, "len", [object]) end
      end

      assert_raise ArgumentError, fn -> Object.repr(%{one | interpreter: "x"}) end
      # Whatever else it is.
      assert_raise ArgumentError, fn -> Snex.call(inp, "len", [%{__struct__: Object}]) end

      for object <- [%{one | id: two.id}, %{one | handle: env.handle}, %{foreign | interpreter: inp}] do
        assert_raise ArgumentError, fn -> Object.release(object) end
      end

      for object <- [one, two], do: assert({:ok, true} = Object.call(object, "same", [object]))
      assert Snex.pyeval(env, "return 1") == {:ok, 1}
      assert {:ok, true} = Object.call(foreign, "same", [foreign])
    end

    test "that Python has made of a dict", %{inp: inp} do
      for id <- ["0", "1", "-1", "None", "[]", "2 ** 70"],
          returned <- ["x", "[x, thing()]", "{1: (x,), 2: {3: thing()}}"] do
        code = """
        a = snex.Atom
        x = {a('__struct__'): a('Elixir.Snex.Object'), a('id'): #{id}, a('type'): [1], a('interpreter'): None, a('handle'): None}
        return #{returned}
        """

        assert {:ok, value} = Snex.pyeval(inp, code, returns: :auto, encoding_opts: [])
        forged = Enum.find(objects(value), &(&1.type == [1]))
        assert is_binary(inspect(forged))

        # At most it is one of those that have come with it.
        if forged.handle == nil do
          assert {:error, %Error{code: :object_not_found}} = Object.repr(forged)
          assert_raise ArgumentError, fn -> Snex.call(inp, "len", [forged]) end
        else
          assert Enum.any?(objects(value), &(&1.id == forged.id and &1.type == "Thing"))
        end
      end

      code = "a = snex.Atom\nreturn {a('__struct__'): a('Elixir.Snex.Object'), a('id'): 1}"
      assert {:ok, forged} = Snex.pyeval(inp, code)
      assert_raise ArgumentError, fn -> Snex.call(inp, "len", [forged]) end
    end

    defp objects(%Object{} = object), do: [object]
    defp objects(list) when is_list(list), do: Enum.flat_map(list, &objects/1)
    defp objects(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> objects()
    defp objects(map) when is_map(map), do: map |> Map.to_list() |> objects()
    defp objects(_other), do: []
  end

  describe "code of the object's own" do
    @bad """
    class Bad:
        def __init__(self, how): object.__setattr__(self, 'how', how)
        def act(self): return object.__getattribute__(self, 'how')()
        def __repr__(self): return self.act()
        def __str__(self): return self.act()
        def __len__(self): return self.act()
        def __getitem__(self, key): return self.act()
        def __getattr__(self, name): return self.act()
        def __call__(self): return self.act()
        def __eq__(self, other): return self.act()
        __hash__ = None
        def __bool__(self): return self.act()
        def __reduce_ex__(self, protocol): return self.act()
        def __dir__(self): return self.act()
        @property
        def __class__(self): return self.act()
    """

    defp asked(object) do
      [
        fn -> Object.repr(object, timeout: 60_000) end,
        fn -> Object.str(object, timeout: 60_000) end,
        fn -> Object.length(object, timeout: 60_000) end,
        fn -> Object.item(object, 1, timeout: 60_000) end,
        fn -> Object.get(object, "x", timeout: 60_000) end,
        fn -> Object.call(object, [], timeout: 60_000) end
      ]
    end

    test "that raises is an error of the one call", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, @bad <> "\ndef fail(): raise SystemExit('bad')")
      object = Snex.pyeval!(env, "return Bad(fail)", returns: :object)
      assert inspect(object) =~ "#Snex.Object<Bad "

      for ask <- asked(object) do
        assert {:error, %Error{exception: %{type: "SystemExit"}, reason: "bad"}} = ask.()
      end

      assert_raise Error, fn -> to_string(object) end
      # It goes out and comes back without anything being asked of it.
      assert {:ok, [%Object{id: id}]} = Snex.pyeval(env, "return [x]", %{"x" => object}, returns: :auto)
      assert id == object.id
      assert {:error, %Error{}} = Object.value(object)
    end

    test "that blocks is interrupted", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.pyeval!(env, @bad <> "\nimport time\ndef block():\n  while True: time.sleep(0.001)")
      object = Snex.pyeval!(env, "return Bad(block)", returns: :object)
      assert inspect(object) =~ "Bad"

      for ask <- [&Object.repr/2, &Object.str/2, &Object.length/2, &Object.get(&1, "x", &2)] do
        assert {:error, %Error{code: :response_timeout}} = ask.(object, timeout: 500)
      end

      assert Snex.call(env, "len", ["x"], timeout: 60_000) == {:ok, 1}
    end

    test "that prints does so for the caller, and may call Elixir from a thread", %{inp: inp} do
      env = Snex.make_env!(inp)

      Snex.pyeval!(
        env,
        @bad <>
          "\ndef say(): print('said'); return 'text'\ndef ask(): return snex.call_sync('Elixir.String', 'upcase', ['a'])"
      )

      object = Snex.pyeval!(env, "return Bad(say)", returns: :object)
      assert capture_io(fn -> assert Object.repr(object) == {:ok, "text"} end) == "said\n"
      object = Snex.pyeval!(env, "return Bad(ask)", returns: :object)
      assert Object.str(object, run: :thread) == {:ok, "A"}
    end

    test "at its end may raise, print, call Elixir and hand something out" do
      inp = start_interpreter!(output: :discard)
      env = Snex.make_env!(inp, %{"test" => self()})

      Snex.pyeval!(env, """
      import asyncio
      class Last:
          def __init__(self, how): self.how = how
          def __del__(self): self.how(self)
      async def tell(what): await snex.send(test, what)
      tasks = set()
      def hand_out(self):
          tasks.add(asyncio.get_running_loop().create_task(tell(("handed out", snex.keep([1, 2])))))
      def revive(self):
          tasks.add(asyncio.get_running_loop().create_task(tell(("revived", snex.keep(self)))))
      def fail(self): raise ValueError('at the end')
      def exit(self): raise SystemExit(3)
      def say(self): print('last words')
      """)

      apart(fn ->
        for how <- ~w[hand_out revive fail exit say],
            do: assert({:ok, %Object{}} = Snex.call(env, "Last", [Snex.get!(env, how)]))
      end)

      assert_receive {"handed out", %Object{type: "list"} = list}, 60_000
      assert Object.value(list) == {:ok, [1, 2]}
      assert_receive {"revived", %Object{type: "Last"} = last}, 60_000
      assert Object.get!(last, "how", returns: :object).type == "function"
      assert Snex.call(env, "len", ["x"]) == {:ok, 1}
    end
  end

  describe "leaves" do
    test "with :auto, what has no form in Elixir stays in Python, in its place", %{inp: inp} do
      code = """
      t = thing()
      return [1, t, (2, t), {"a": t, t: 3, (t, 1): 4}, {t}, frozenset([t]), {"k": [{"deep": thing}]}, slice(2), None]
      """

      assert {:ok, value} = Snex.pyeval(inp, code, returns: :auto)
      [1, thing, {2, thing2}, map, set, frozen, deep, slice, nil] = value
      assert %Object{type: "Thing"} = thing
      assert thing == thing2 or thing2.id == thing.id
      assert %Object{type: "Thing"} = map["a"]
      assert Enum.sort(Map.values(Map.delete(map, "a"))) == [3, 4]
      assert [%Object{}] = for({%Object{} = key, 3} <- map, do: key)
      assert [%Object{}] = for({{%Object{} = key, 1}, 4} <- map, do: key)
      assert [%Object{}] = MapSet.to_list(set)
      assert [%Object{}] = MapSet.to_list(frozen)
      assert %{"k" => [%{"deep" => %Object{type: "function"}}]} = deep
      assert %Object{type: "slice"} = slice
      assert Interpreter.info(inp).objects == 3
    end

    test "with :value they are an error, and with :object the whole stays", %{inp: inp} do
      assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return [1, {'a': thing()}]")
      assert reason =~ "Cannot serialize object of <class '__main__.Thing'>"
      assert reason =~ "a"
      assert {:ok, %Object{type: "list"} = list} = Snex.pyeval(inp, "return [1, thing()]", returns: :object)
      assert Object.length(list) == {:ok, 2}
      assert {:ok, %Object{type: "NoneType"}} = Snex.pyeval(inp, "pass", returns: :object)
      assert {:ok, 1} = Snex.pyeval(inp, "return 1", returns: :auto)
      # What was kept already is not kept twice.
      assert {:ok, %Object{type: "list"}} = Snex.pyeval(inp, "return snex.keep([1])", returns: :object)
    end

    test "made by snex.keep go wherever a value goes", %{inp: inp} do
      assert {:ok, [%Object{type: "list"} = list, 1]} = Snex.pyeval(inp, "return [snex.keep([1]), 1]")
      assert Object.value(list) == {:ok, [1]}
      assert {:ok, %{"a" => %Object{type: "int"}}} = Snex.pyeval(inp, "return {'a': snex.keep(1)}")
      assert {:ok, %Object{}} = Snex.pyeval(inp, "return snex.keep(snex.keep(1))")
    end

    test "go to a process, and to functions of Elixir and back", %{inp: inp} do
      env = Snex.make_env!(inp, %{"test" => self()})
      assert Snex.pyeval(env, "t = thing(); await snex.send(test, {'t': snex.keep(t)})") == {:ok, nil}
      assert_receive %{"t" => %Object{type: "Thing"} = object}
      assert Snex.pyeval(env, "return x is t", %{"x" => object}) == {:ok, true}

      assert Snex.pyeval(env, "return (await Elixir.List.wrap(snex.keep(t)))[0] is t") == {:ok, true}
      assert Snex.pyeval(env, "return (await Elixir.Map.new([(1, snex.keep(t))]))[1] is t") == {:ok, true}
      assert {:ok, true} = Snex.pyeval(env, "return await snex.call('erlang', 'is_map', [snex.keep(t)])")
      # Without an explicit handle it is an error.
      assert {:error, %Error{reason: reason}} = Snex.pyeval(env, "await snex.send(test, t)")
      assert reason =~ "Cannot serialize"
      code = "return snex.call_sync('Elixir.List', 'wrap', [snex.keep(t)])[0] is t"
      assert Snex.pyeval(env, code, run: :thread) == {:ok, true}
    end

    test "custom encoders take precedence, and what they refuse is a leaf", %{inp: inp} do
      env = Snex.make_env!(inp)

      Snex.pyeval!(env, """
      def encode(x):
          if isinstance(x, range): return list(x)
          if isinstance(x, complex): return [x.real, thing()]
          if isinstance(x, slice): raise ValueError("no slices")
          if isinstance(x, memoryview | type(...)): return snex.keep(x)
          raise TypeError("unknown")
      snex.set_custom_encoder(encode)
      """)

      code = "return [range(2), 1j, thing(), {range(1): 1} , ...]"

      assert {:ok,
              [
                [0, 1],
                [+0.0, %Object{type: "Thing"}],
                %Object{type: "Thing"},
                %{[0] => 1},
                %Object{type: "ellipsis"}
              ]} =
               Snex.pyeval(env, code, returns: :auto)

      assert {:ok, %Object{type: "ellipsis"}} = Snex.pyeval(env, "return ...")
      assert {:error, %Error{reason: reason}} = Snex.pyeval(env, "return [thing()]")
      assert reason =~ "unknown"

      assert {:error, %Error{exception: %{type: "ValueError"}}} =
               Snex.pyeval(env, "return slice(1)", returns: :auto)

      assert {:ok, %Object{type: "range"}} = Snex.pyeval(env, "return range(2)", returns: :object)
    end

    test "are the same of an interpreter without the fast encoder" do
      inp = start_interpreter!(init_script: @classes, environment: %{"SNEX_ENCODER" => "pure"})

      assert {:ok, [%Object{} = one, {%Object{} = two, 1}]} =
               Snex.pyeval(inp, "t = thing(); return [t, (t, 1)]", returns: :auto)

      assert one.id == two.id
      assert Object.call(one, "same", [two]) == {:ok, true}
      assert {:ok, %Object{}} = Snex.pyeval(inp, "return 1", returns: :object)
    end
  end
end
