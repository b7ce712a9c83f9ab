defmodule Snex.Interpreter.CallsTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  test "calls from Python reach Elixir functions, also anonymous ones, and come back", %{inp: inp} do
    assert Snex.pyeval(inp, "return await Elixir.Enum.map([1, 2, 3], f)", %{"f" => &(&1 * 2)}) ==
             {:ok, [2, 4, 6]}

    assert Snex.pyeval(inp, "return await snex.call('erlang', 'node', [])") == {:ok, node()}
  end

  test "calls from Python run at once", %{inp: inp} do
    code = "import asyncio; return await asyncio.gather(*[Elixir.Function.identity(n) for n in range(200)])"
    assert Snex.pyeval(inp, code) == {:ok, Enum.to_list(0..199)}
  end

  test "calls from Python raise in Python what fails in Elixir", %{inp: inp} do
    code =
      "try:\n    await Elixir.String.upcase(1)\nexcept snex.ElixirError as e:\n    return (e.kind, str(e))"

    assert {:ok, {"error", message}} = Snex.pyeval(inp, code)
    assert message =~ "FunctionClauseError"

    code = "try:\n    await Elixir.No.such()\nexcept snex.ElixirError as e:\n    return str(e)"
    assert {:ok, message} = Snex.pyeval(inp, code)
    assert message =~ "function No.such/0 is undefined"
  end

  test "a call from Python whose process is killed raises in Python, and answers nothing to others", %{
    inp: inp
  } do
    kill = fn -> Process.exit(self(), :kill) end

    code =
      "try:\n    await snex.call('erlang', 'apply', [f, []])\nexcept snex.ElixirError as e:\n    return (e.kind, str(e))"

    assert {:ok, {"exit", message}} = Snex.pyeval(inp, code, %{"f" => kill}, timeout: 60_000)
    assert message =~ "killed"
    assert Snex.pyeval(inp, "return await snex.call('erlang', 'node', [])") == {:ok, node()}
  end

  test "an ElixirError shows the exception as Elixir formats it, with its stack trace", %{inp: inp} do
    code = """
    try:
        await snex.call("Elixir.Kernel", "apply", [fail, []])
    except snex.ElixirError as error:
        return str(error), error.stacktrace
    """

    for fail <- [fn -> raise "no good" end, fn -> exit(:no_good) end, fn -> throw(:no_good) end] do
      {:ok, {text, [_ | _] = stacktrace}} = Snex.pyeval(inp, code, %{"fail" => fail})
      assert [banner | entries] = String.split(text, "\n    ")
      assert banner in ["** (RuntimeError) no good", "** (exit) :no_good", "** (throw) :no_good"]
      assert Enum.map(entries, &String.trim/1) == Enum.map(stacktrace, &String.trim/1)
      assert Enum.any?(entries, &(&1 =~ "calls_test.exs:"))
    end

    # Also where it ends the code.
    assert {:error, error} =
             Snex.pyeval(inp, "await Elixir.Kernel.apply(fail, [])", %{"fail" => fn -> raise "no" end})

    assert error.reason =~ "** (RuntimeError) no\n    test/snex/interpreter/calls_test.exs:"
  end

  test "module, function, args and node are keywords, or positional", %{inp: inp} do
    for call <- ["call", "call_sync"] do
      code = """
      import asyncio, inspect
      async def call(*args, **kwargs):
          if inspect.iscoroutinefunction(snex.#{call}):
              return await snex.#{call}(*args, **kwargs)
          return await asyncio.to_thread(snex.#{call}, *args, **kwargs)
      return [
          await call(module="Elixir.Enum", function="sum", args=[[1, 2]]),
          await call("Elixir.Enum", "sum", [[1, 2]]),
          await call(module="Elixir.Enum", function="sum", args=[[1, 2]], node=node),
          await call("Elixir.Enum", "sum", [[1, 2]], node),
      ]
      """

      assert Snex.pyeval(inp, code, %{"node" => node()}) == {:ok, [3, 3, 3, 3]}
    end

    code = """
    await snex.cast(module="Elixir.Kernel", function="send", args=[me, 1], node=node)
    await snex.cast("Elixir.Kernel", "send", [me, 2], node)
    """

    assert Snex.pyeval(inp, code, %{"me" => self(), "node" => node()}) == {:ok, nil}
    assert_receive 1, 60_000
    assert_receive 2, 60_000
  end

  test "module, function and node may be terms that hold an atom or a string" do
    # As text, so that :allow compares what is called.
    inp = start_interpreter!(allow: [{String, :upcase}])

    for module <- [String, "Elixir.String"],
        function <- [:upcase, "upcase"],
        node <- [node(), to_string(node())] do
      vars =
        for {name, value} <- [m: module, f: function, n: node], into: %{}, do: {"#{name}", Serde.term(value)}

      code = "return await snex.call(m, f, ['a'], node=n), await snex.BeamModuleProxy(m).upcase('b')"
      assert Snex.pyeval(inp, code, vars) == {:ok, {"A", "B"}}
    end

    code = "await snex.call(m, 'to_atom', ['a'])"

    assert {:error, %Error{exception: %{type: "ElixirError"}}} =
             Snex.pyeval(inp, code, %{"m" => Serde.term("Elixir.String")})

    for wrong <- [self(), 1, ["Elixir.String"], <<255>>] do
      assert {:error, error} = Snex.pyeval(inp, code, %{"m" => Serde.term(wrong)})
      assert error.exception.type == "TypeError"
      assert error.reason =~ "expected a name as a str, snex.Atom, or snex.Term of an atom or a string"
    end
  end

  test "BeamModuleProxy stands for a module, or for a function by its whole name", %{inp: inp} do
    code = """
    return [
        await snex.BeamModuleProxy("Elixir.Enum").sum([1, 2]),
        await snex.BeamModuleProxy("Elixir.Enum.sum")([1, 2]),
        await snex.BeamModuleProxy(module=snex.Atom("Elixir.Enum.sum"))([1, 2]),
        await snex.BeamModuleProxy("lists").sum([1, 2]),
        await snex.BeamModuleProxy("lists.sum")([1, 2]),
    ]
    """

    assert Snex.pyeval(inp, code) == {:ok, [3, 3, 3, 3, 3]}
    assert {:error, error} = Snex.pyeval(inp, "snex.BeamModuleProxy('lists')([1, 2])")
    assert error.reason == "lists is a module; call one of its functions"
  end

  test "a message to a name that nobody has is dropped, and logged at :debug", %{inp: inp} do
    code = "await snex.send(snex.Atom('snex_nobody'), 'secret'); await snex.send(me, 'next')"

    log =
      ExUnit.CaptureLog.capture_log([level: :debug], fn ->
        assert Snex.pyeval(inp, code, %{"me" => self()}) == {:ok, nil}
      end)

    assert [_, line] = String.split(log, "[debug] ")
    assert line =~ "a message from Python was dropped: no process is registered as :snex_nobody"
    refute log =~ "secret"
    assert_received "next"

    # In a thread as well; on another node, nobody knows.
    code = """
    import asyncio
    await asyncio.to_thread(snex.send_sync, snex.Atom('snex_nobody'), 1)
    await snex.send((snex.Atom('snex_nobody'), node), 1)
    """

    assert Snex.pyeval(inp, code, %{"node" => node()}) == {:ok, nil}
    # No destination at all.
    assert {:error, %Error{exception: %{type: "ElixirError"}}} =
             Snex.pyeval(inp, "await snex.send('snex_nobody', 1)")
  end

  test "messages from Python arrive in order, to pids and to names", %{inp: inp} do
    Process.register(self(), :snex_test_receiver)

    code =
      "for n in range(100):\n    await snex.send(pid, n)\nawait snex.send(snex.Atom('snex_test_receiver'), 'end')"

    assert Snex.pyeval(inp, code, %{"pid" => self()}) == {:ok, nil}
    for n <- 0..99, do: assert_received(^n)
    assert_received "end"
  end
end
