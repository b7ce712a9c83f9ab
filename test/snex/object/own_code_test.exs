defmodule Snex.Object.OwnCodeTest do
  # Code of the object's own, which runs when it is asked something.
  use Snex.Case, async: true

  import ExUnit.CaptureIO
  import Snex.Things

  alias Snex.Object

  setup do
    {:ok, inp: start_interpreter!(init_script: classes())}
  end

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
