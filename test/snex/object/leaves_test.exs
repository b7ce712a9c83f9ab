defmodule Snex.Object.LeavesTest do
  # What has no form in Elixir stays in Python: the leaves of a value.
  use Snex.Case, async: true

  import Snex.Things

  alias Snex.Object

  setup do
    {:ok, inp: start_interpreter!(init_script: classes())}
  end

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
    inp = start_interpreter!(init_script: classes(), environment: %{"SNEX_ENCODER" => "pure"})

    assert {:ok, [%Object{} = one, {%Object{} = two, 1}]} =
             Snex.pyeval(inp, "t = thing(); return [t, (t, 1)]", returns: :auto)

    assert one.id == two.id
    assert Object.call(one, "same", [two]) == {:ok, true}
    assert {:ok, %Object{}} = Snex.pyeval(inp, "return 1", returns: :object)
  end
end
