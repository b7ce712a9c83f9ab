defmodule Snex.UnawaitedTest do
  # Python's warning about a call of Elixir, or a coroutine, that nobody has awaited.
  use Snex.Case, async: true

  alias Snex.Code
  alias Snex.Error

  # What Python writes to standard error.
  defp written(code, values \\ %{}) do
    inp = start_interpreter!(output: self())
    result = Snex.pyeval(inp, %Code{src: code, file: "page.ex", line: 7}, values)
    # Printed after everything that the call has left behind.
    {:ok, nil} = Snex.pyeval(inp, "import gc, sys\ngc.collect()\nprint('the end', file=sys.stderr)")
    {result, text("")}
  end

  defp text(before) do
    receive do
      {:snex_output, _interpreter, :stderr, text} ->
        if text =~ "the end", do: before <> text, else: text(before <> text)
    after
      60_000 -> flunk("nothing came after #{inspect(before)}")
    end
  end

  describe "a call of Elixir" do
    test "in a variable: the warning has the user's line" do
      assert {{:ok, nil}, text} = written("x = 1\ncount = Elixir.Enum.count([x])\ny = 2")

      assert text =~
               ~r/^<page.ex [0-9a-f]+>:8: RuntimeWarning: coroutine 'Elixir.Enum.count' was never awaited\n  count = Elixir/m

      refute text =~ "asyncio/"
      refute text =~ "snex/_"
    end

    test "by whatever function: the warning has the user's line" do
      for {call, path} <- [
            {"f(1)", "<snex.Function fn/1 of Snex.UnawaitedTest>"},
            {"snex.call('erlang', 'node', [])", "erlang.node"},
            {"snex.cast('erlang', 'node', [])", "erlang.node"},
            {"Elixir.Enum.count([], cast=True)", "Elixir.Enum.count"},
            {"snex.send(f, 1)", "snex.send"}
          ] do
        assert {{:ok, nil}, text} = written("x = 1\nkept = #{call}\ny = 2", %{"f" => fn x -> x end})

        assert text =~
                 ~r/^<page.ex [0-9a-f]+>:8: RuntimeWarning: coroutine '#{Regex.escape(path)}' was never awaited\n  kept = /m

        refute text =~ "asyncio/"
        refute text =~ "snex/_"
      end
    end

    test "in a loop: the line is shown once" do
      assert {{:ok, nil}, text} =
               written("x = 1\ncounts = [Elixir.Enum.count([n]) for n in range(10)]")

      assert [_] = Regex.scan(~r/page.ex [0-9a-f]+>:8/, text)
    end

    test "as the result: the error and the warning have the user's line" do
      assert {{:error, %Error{reason: reason}}, text} = written("x = 1\nreturn [Elixir.Enum.count([x])]")

      assert reason ==
               "[0]: Cannot serialize object of <class 'coroutine'>: was `await` forgotten? (Elixir.Enum.count, page.ex, line 8)"

      assert text =~
               ~r/^<page.ex [0-9a-f]+>:8: RuntimeWarning: coroutine 'Elixir.Enum.count' was never awaited/m
    end

    test "as a statement: the warning has the user's line, as Python says it" do
      assert {{:ok, nil}, text} = written("x = 1\nElixir.Enum.count([x])")

      assert text =~
               ~r/^<page.ex [0-9a-f]+>:8: RuntimeWarning: coroutine 'Elixir.Enum.count' was never awaited\n  Elixir/m
    end
  end

  test "a coroutine of a function of the user's: the warning says where the function is" do
    assert {{:error, _}, text} = written("x = 1\nasync def fetch():\n    pass\nreturn fetch()")

    assert text =~
             ~r/^<page.ex [0-9a-f]+>:8: RuntimeWarning: coroutine 'fetch', defined here, was never awaited\n  async def/m

    assert {{:ok, nil}, text} = written("async def fetch():\n    pass\nfetch()")
    assert text =~ ~r/^<page.ex [0-9a-f]+>:9: RuntimeWarning: coroutine 'fetch' was never awaited\n  fetch/m
  end

  test "warnings that are errors, and origins that Python notes, stay as they are" do
    code = "import sys\nsys.set_coroutine_origin_tracking_depth(10)\nx = Elixir.Enum.count([1])"
    assert {{:ok, nil}, text} = written(code)
    assert text =~ "Coroutine created at (most recent call last)"
    assert text =~ "x = Elixir.Enum.count([1])"

    # What Python has noted are lines of Snex alone.
    assert {{:ok, nil}, text} = written(String.replace(code, "10", "1"))
    refute text =~ "created at"
    assert text =~ "x = Elixir.Enum.count([1])"
  end
end
