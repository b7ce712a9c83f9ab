defmodule Snex.ObjectTest do
  use Snex.Case, async: true

  import Snex.Things

  alias Snex.Object

  doctest Snex.Object

  setup do
    {:ok, inp: start_interpreter!(init_script: classes())}
  end

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
        assert error.message =~ "belongs to the interpreter #{inspect(inp)}"
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
      other = start_interpreter!(init_script: classes())
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
end
