defmodule Snex.Interpreter.AllowSendTest do
  # Reads the log.
  use Snex.Case, async: false

  import ExUnit.CaptureLog

  # Sends to each destination in turn, and returns which messages came and what was logged.
  defp sent(inp, destinations) do
    log =
      capture_log(fn ->
        code = "for n, to in enumerate(all): await snex.send(to, ('sent', n))"
        {:ok, nil} = Snex.pyeval(inp, code, %{"all" => Enum.map(destinations, &destination/1)})
        # The process that sends has done so when it has taken this call.
        {:ok, _result} = Snex.pyeval(inp, "return await Elixir.Function.identity(1)")
      end)

    {received([]), log}
  end

  defp destination(tuple) when is_tuple(tuple), do: Serde.term(tuple)
  defp destination(other), do: other

  defp received(numbers) do
    receive do
      {"sent", n} -> received([n | numbers])
    after
      0 -> Enum.reverse(numbers)
    end
  end

  setup do
    name = :"receiver_#{System.unique_integer([:positive])}"
    Process.register(self(), name)
    {:ok, name: name}
  end

  test "is :all by default", %{name: name} do
    for opts <- [[], [allow_send: :all]] do
      assert {[0, 1, 2], ""} = sent(start_interpreter!(opts), [self(), name, {name, node()}])
    end
  end

  test ":none: nothing is sent, and a warning says to whom it was to be", %{name: name} do
    inp = start_interpreter!(allow_send: :none)
    assert {[], log} = sent(inp, [self(), name, {name, node()}])

    assert log =~
             "[warning] a message from Python was refused: #{inspect(self())} is not among the processes that Python may send to"

    assert log =~ "#{inspect(name)} is not among the processes"
    assert log =~ "see the option :allow_send"
  end

  test "a list of pids and names: a process is reached by its pid or its name", %{name: name} do
    other = spawn_link(fn -> Process.sleep(:infinity) end)
    registry = :"registry_#{System.unique_integer([:positive])}"
    start_supervised!({Registry, keys: :unique, name: registry})
    {:ok, _} = Registry.register(registry, "key", nil)
    :yes = :global.register_name({name, 1}, self())

    for {rules, arrived} <- [
          {[name], [0, 1, 2]},
          {[{name, node()}], [0, 1, 2]},
          {[self()], [0]},
          {[{:global, {name, 1}}], [0]},
          {[{:via, Registry, {registry, "key"}}], [0]},
          {[{:via, Registry, {:no_registry, "key"}}, {:global, :nobody}, :nobody, other], []},
          {[{name, :elsewhere@nowhere}], []}
        ] do
      inp = start_interpreter!(allow_send: rules)
      assert {^arrived, log} = sent(inp, [self(), name, {name, node()}])
      assert log =~ "was refused" == length(arrived) < 3
    end
  end

  test "a refused message makes no atom, and what is written in an unusual way is refused" do
    inp = start_interpreter!(allow_send: [:somebody])
    unknown = "never_heard_of_#{System.unique_integer([:positive])}"

    code = """
    from snex._elixir import client
    from snex._wire import frame
    import asyncio, zlib

    async def post(body):
        done = asyncio.get_running_loop().create_future()
        client.current().pass_on(frame.SEND, [body], done.set_result)
        await done

    await snex.send(snex.Atom(unknown), 1)
    await snex.send(snex.Atom("erlang"), snex.Atom(unknown))
    name = b"w\\x08somebody"
    await post(b"\\x83h\\x02P" + len(name).to_bytes(4, "big") + zlib.compress(name) + b"a\\1")
    await post(b"\\x83l\\0\\0\\0\\1" + name + b"j")
    await post(b"\\x83h\\x02P\\xff\\xff\\xff\\xff" + zlib.compress(name) + b"a\\1")
    """

    log = capture_log(fn -> assert Snex.pyeval(inp, code, %{"unknown" => unknown}) == {:ok, nil} end)
    assert_raise ArgumentError, fn -> String.to_existing_atom(unknown) end
    assert length(String.split(log, "its destination is unknown here")) == 5
    assert log =~ ":erlang is not among"
  end

  test "a rule that is none is refused" do
    for wrong <- [:some, ["name"], [nil], [{:a, "b"}], [{:via, 1, 2}], :self, [1]] do
      assert_raise ArgumentError,
                   ~r/option :allow_send cannot be .*: expected :all, :none, or a list of pids and names/,
                   fn ->
                     Interpreter.start_link(allow_send: wrong)
                   end
    end
  end
end
