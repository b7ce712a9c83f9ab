defmodule Snex.Map.NodesTest do
  # Maps of interpreters on other nodes. Not async: this VM becomes a node meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO
  import Snex.Peer, only: [at_rest?: 1]

  alias Snex.Object
  alias Snex.Peer

  setup_all {Peer, :two_nodes}
  setup {Peer, :await_rest}

  setup %{b: b} do
    script =
      marks() <>
        """

        def left():
            import gc; from snex._eval import objects
            gc.collect()
            return len(objects.table), len(marks)

        def mark_each(x): return mark()

        def even(x):
            if x % 2: raise ValueError("odd")
            print(x)
            return x
        """

    {:ok, there: Peer.start_interpreter!(b, init_script: script)}
  end

  test "results are those of the elements, in order", %{there: there} do
    for opts <- [[], [concurrency: 3], [stream: true], [demand: 1]] do
      assert there |> Snex.map("abs", -1..-500//-1, opts) |> Enum.to_list() == Enum.map(1..500, &{:ok, &1})
    end

    text =
      capture_io(fn ->
        results = Snex.map(there, "even", 0..99)
        assert for({:ok, n} <- results, do: n) == Enum.to_list(0..98//2)
        assert Enum.count(results, &match?({:error, %Error{exception: %{type: "ValueError"}}}, &1)) == 50
      end)

    assert text == Enum.map_join(0..98//2, &"#{&1}\n")
    assert [ok: 1, error: %Error{}, ok: 2] = Snex.map(there, "len", ["a", "\xff", "ab"])
  end

  test "an enumerable runs here, and an environment there has its names", %{there: there} do
    test = self()
    env = Snex.make_env!(there, %{"n" => 5})
    {:ok, nil} = Snex.pyeval(env, "def add(x): return x + n")

    assert Snex.map(env, "add", Stream.each(1..3, fn _n -> assert self() == test end)) == [
             ok: 6,
             ok: 7,
             ok: 8
           ]
  end

  test "objects are made, used and dropped", %{there: there, b: b} do
    apart(fn ->
      objects = for {:ok, object} <- Snex.map(there, "mark_each", 1..50), do: object
      assert length(objects) == 50
      assert Enum.all?(objects, &match?(%Object{type: "Mark", interpreter: ^there}, &1))
      assert there |> Snex.map("id", objects) |> Enum.uniq() |> length() == 50
      assert there |> Snex.map("mark_each", 1..50, concurrency: 2) |> length() == 50
    end)

    eventually(fn -> Snex.call!(there, "left", [], timeout: 60_000) == {0, 0} end)
    eventually(fn -> at_rest?([node(), b]) end, 1_000)
  end

  test "a stream that ends early leaves nothing there", %{there: there} do
    assert there |> Snex.map("abs", Stream.iterate(1, &(&1 + 1)), stream: true) |> Enum.take(10) |> length() ==
             10

    eventually(fn -> Interpreter.info(there).requests_in_flight == 0 end)
  end

  test "a timeout there is one here", %{there: there} do
    results = Snex.map(there, "asyncio.sleep", [0, 600, 0], timeout: 3_000, demand: 1)

    assert [{:ok, nil}, {:error, %Error{code: :response_timeout}}, {:error, %Error{code: :response_timeout}}] =
             results

    eventually(fn -> Interpreter.info(there).requests_in_flight == 0 end)
  end
end
