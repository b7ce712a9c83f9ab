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

  test "messages from Python arrive in order, to pids and to names", %{inp: inp} do
    Process.register(self(), :snex_test_receiver)

    code =
      "for n in range(100):\n    await snex.send(pid, n)\nawait snex.send(snex.Atom('snex_test_receiver'), 'end')"

    assert Snex.pyeval(inp, code, %{"pid" => self()}) == {:ok, nil}
    for n <- 0..99, do: assert_received(^n)
    assert_received "end"
  end
end
