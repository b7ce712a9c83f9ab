defmodule Snex.SigilsTest do
  use Snex.Case, async: true

  import Snex.Sigils

  doctest Snex.Sigils
  doctest Snex.Code

  @moduletag :interpreter

  defp place(inp, code) do
    {:error, error} = Snex.pyeval(inp, code)
    Regex.run(~r/File "(.*)", line (\d+), in <module>/, Enum.join(error.traceback), capture: :all_but_first)
  end

  test "one line points to its line", %{inp: inp} do
    line = __ENV__.line + 1
    code = ~p"raise RuntimeError('here')"
    assert place(inp, code) == [__ENV__.file, to_string(line)]
  end

  test "a heredoc points to the line inside it", %{inp: inp} do
    line = __ENV__.line + 4

    code = ~P"""
    x = 1
    raise RuntimeError('here')
    """

    assert place(inp, code) == [__ENV__.file, to_string(line)]
  end

  test "an indented heredoc loses its indentation, not its place", %{inp: inp} do
    if true do
      line = __ENV__.line + 4

      code = ~PY"""
      if True:
          raise RuntimeError('here')
      """

      assert place(inp, code) == [__ENV__.file, to_string(line)]
    end
  end

  test "a syntax error points to its line", %{inp: inp} do
    line = __ENV__.line + 4

    code = ~p"""
    x = 1
    y = = 2
    """

    {:error, error} = Snex.pyeval(inp, code)
    assert Enum.join(error.traceback) =~ ~s(File "#{__ENV__.file}", line #{line})
  end

  test "code without a place shows its source all the same", %{inp: inp} do
    assert place(inp, "x = 1\nraise RuntimeError('here')") == ["<Snex.Code>", "2"]
    {:error, error} = Snex.pyeval(inp, "x = 1\nraise RuntimeError('here')")
    assert Enum.join(error.traceback) =~ "    raise RuntimeError('here')\n"
  end

  test "source may be iodata, and interpolation works", %{inp: inp} do
    assert Snex.pyeval(inp, %Snex.Code{src: ["return ", [?4 | "2"]]}) == {:ok, 42}
    number = 20
    assert Snex.pyeval(inp, ~p"return #{number} + 22") == {:ok, 42}
    assert Snex.pyeval(inp, ~P"return '#{number}'") == {:ok, "\#{number}"}
  end
end
