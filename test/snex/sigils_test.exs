defmodule Snex.SigilsTest do
  use Snex.Case, async: true

  import Snex.Sigils

  doctest Snex.Sigils
  doctest Snex.Code

  @moduletag :interpreter

  defp traceback(inp, code) do
    {:error, error} = Snex.pyeval(inp, code)
    Enum.join(error.traceback)
  end

  # File and line of the innermost frame of the code.
  defp place(inp, code) do
    [file, line] =
      ~r/File "(.*)", line (\d+), in /
      |> Regex.scan(traceback(inp, code), capture: :all_but_first)
      |> List.last()

    {file, String.to_integer(line)}
  end

  # File and line of a SyntaxError, which has no frame.
  defp wrong_place(inp, code) do
    [file, line] = Regex.run(~r/File "(.*)", line (\d+)\n/, traceback(inp, code), capture: :all_but_first)
    {file, String.to_integer(line)}
  end

  test "code without a location is in <Snex.Code>, from line 1 on, as a string is", %{inp: inp} do
    src = "raise RuntimeError('here')"
    assert %Snex.Code{src: src} == %Snex.Code{src: src, file: "<Snex.Code>", line: 0}

    for code <- [
          src,
          Snex.Code.wrap(src),
          %Snex.Code{src: src},
          %Snex.Code{src: [src], file: nil, line: nil},
          %Snex.Code{src: src, line: 1}
        ] do
      assert place(inp, code) == {"<Snex.Code>", 1}
      assert traceback(inp, code) =~ src
    end

    assert place(inp, %Snex.Code{src: src, file: "here.py"}) == {"here.py", 1}
    assert Snex.pyeval(inp, Snex.Code.wrap(nil)) == {:ok, nil}
    code = %Snex.Code{src: src, file: "here.py", line: 7}
    assert Snex.Code.wrap(code) == code

    assert_raise ArgumentError, ~r/expected code as a string or a Snex.Code, got: 1/, fn ->
      Snex.Code.wrap(1)
    end

    for wrong <- [%{code | file: :here}, %{code | line: -1}, %{code | line: "1"}] do
      assert_raise ArgumentError, ~r/expected the :file of a Snex.Code to be a string/, fn ->
        Snex.pyeval(inp, wrong)
      end
    end
  end

  describe "a traceback has the exact file and line of" do
    test "one-liners", %{inp: inp} do
      line = __ENV__.line
      assert place(inp, ~p"raise RuntimeError('here')") == {__ENV__.file, line + 1}
      assert place(inp, ~P"raise RuntimeError('here')") == {__ENV__.file, line + 2}
      assert place(inp, ~PY"raise RuntimeError('here')") == {__ENV__.file, line + 3}
    end

    test "heredocs, which start on the next line", %{inp: inp} do
      line = __ENV__.line

      one = ~p"""
      x = 1
      raise RuntimeError('here')
      """

      two = ~P"""
      def fail():
          raise RuntimeError('here')

      fail()
      """

      three = ~PY"""
      raise RuntimeError('here')
      """

      assert place(inp, one) == {__ENV__.file, line + 4}
      assert place(inp, two) == {__ENV__.file, line + 9}
      assert place(inp, three) == {__ENV__.file, line + 15}
    end

    test "indented heredocs, which lose their indentation and not their place", %{inp: inp} do
      if true do
        line = __ENV__.line

        one = ~p"""
        if True:
            raise RuntimeError('here')
        """

        if true do
          two = ~P"""

          x = 1
          raise RuntimeError('here')
          """

          assert place(inp, one) == {__ENV__.file, line + 4}
          assert place(inp, two) == {__ENV__.file, line + 11}
        end
      end
    end

    test "code in a one-line sigil that goes over several lines", %{inp: inp} do
      line = __ENV__.line

      code = ~P[x = 1
raise RuntimeError('here')]

      assert place(inp, code) == {__ENV__.file, line + 3}
    end
  end

  describe "a SyntaxError has the exact file and line in" do
    test "one-liners", %{inp: inp} do
      line = __ENV__.line
      assert wrong_place(inp, ~p"y = = 2") == {__ENV__.file, line + 1}
      assert wrong_place(inp, ~P"y = = 2") == {__ENV__.file, line + 2}
      assert wrong_place(inp, ~PY"y = = 2") == {__ENV__.file, line + 3}
    end

    test "heredocs, indented or not", %{inp: inp} do
      line = __ENV__.line

      code = ~p"""
      x = 1
      y = = 2
      """

      assert wrong_place(inp, code) == {__ENV__.file, line + 4}

      if true do
        line = __ENV__.line

        code = ~PY"""
        x = 1
        if x:
            y = = 2
        """

        assert wrong_place(inp, code) == {__ENV__.file, line + 5}
      end
    end

    test "a Snex.Code with any file and line", %{inp: inp} do
      code = %Snex.Code{src: "x = 1\ny = = 2", file: "/app/lib/mine.ex", line: 40}
      assert wrong_place(inp, code) == {"/app/lib/mine.ex", 41}
    end
  end

  describe "code without a location" do
    test "shows as <Snex.Code>, with its source lines", %{inp: inp} do
      for code <- ["x = 1\nraise RuntimeError('here')", %Snex.Code{src: "x = 1\nraise RuntimeError('here')"}] do
        assert place(inp, code) == {"<Snex.Code>", 2}

        assert traceback(inp, code) =~
                 ~s[  File "<Snex.Code>", line 2, in <module>\n    raise RuntimeError('here')\n]
      end
    end

    test "that is defined in one call and fails in another shows the lines of each", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      {:ok, nil} = Snex.pyeval(env, "# the first\ndef fail():\n    raise RuntimeError('here')")
      traceback = traceback(env, "# the second\n\nfail()")
      assert traceback =~ ~s[File "<Snex.Code>", line 3, in <module>\n    fail()\n]
      assert traceback =~ ~s[File "<Snex.Code>", line 3, in fail\n    raise RuntimeError('here')\n]
    end
  end

  test "code with a location shows its source lines, also where there is no such file", %{inp: inp} do
    code = %Snex.Code{src: "x = 1\nraise RuntimeError('here')", file: "/no/such/file.ex", line: 40}

    assert traceback(inp, code) =~
             ~s[File "/no/such/file.ex", line 41, in <module>\n    raise RuntimeError('here')\n]
  end

  test "~p interpolates and unescapes, ~P and ~PY do not", %{inp: inp} do
    number = 20
    assert Snex.pyeval(inp, ~p"return #{number} + 22") == {:ok, 42}
    assert Snex.pyeval(inp, ~p"x = 1\nreturn x") == {:ok, 1}
    assert Snex.pyeval(inp, ~P"return '#{number}\n'") == {:ok, "\#{number}\n"}
    assert Snex.pyeval(inp, ~PY"return '#{number}\n'") == {:ok, "\#{number}\n"}
  end

  test "the sigils make a %Snex.Code{src, file, line}" do
    assert %Snex.Code{src: "x = 1", file: file, line: line} = ~p"x = 1"
    assert {file, line} == {__ENV__.file, __ENV__.line - 1}
  end
end
