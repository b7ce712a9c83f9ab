defmodule Snex.Object.RefusedTest do
  # A handle that leads nowhere is an error of the one call.
  use Snex.Case, async: true

  import Snex.Things

  alias Snex.Object

  setup do
    {:ok, inp: start_interpreter!(init_script: classes())}
  end

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
    other = start_interpreter!(init_script: classes())
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
