defmodule KinoSnex.PythonCellTest do
  # Not async: the notebook's interpreter has a name.
  use ExUnit.Case

  import Kino.Test

  alias KinoSnex.PythonCell

  setup :configure_livebook_bridge

  @import "import Snex.Livebook, only: [sigil_PY: 2]\n\n"

  # What the cell writes.
  defp source(code, variable \\ ""), do: PythonCell.to_source(%{"variable" => variable, "code" => code})

  # The Python that Elixir reads there, without the line break at its end.
  defp python(source) do
    {quoted, warnings} = Code.with_diagnostics(fn -> Code.string_to_quoted!(source) end)
    assert warnings == []
    {:__block__, _, [_import, {:sigil_PY, _, [{:<<>>, _, [code]}, []]}]} = quoted
    assert String.ends_with?(code, "\n")
    String.replace_suffix(code, "\n", "")
  end

  test "the source is a ~PY, with the variable for its result" do
    assert source("1 + 1", "sum") == @import <> ~s|sum = ~PY"""\n1 + 1\n"""|
    assert source("1 + 1") == @import <> ~s|~PY"""\n1 + 1\n"""|
  end

  test "code with quotes is read as it is, in the plainest form that can hold it" do
    for {code, form} <- [
          {~S|f("""a""")|, ~s|~PY"""\nf("""a""")\n"""|},
          {~s|def f():\n    """Doc."""|, ~s|~PY'''\ndef f():\n    """Doc."""\n'''|},
          {~s|"""a"""\n'''b'''|, ~s|~PY"""\n\\"""a"""\n'''b'''\n"""|},
          # A backslash before the quotes of the heredoc would be lost.
          {~S|x = "a\"""b"|, ~s|~PY'''\nx = "a\\"""b"\n'''|},
          {~S|x = "\"""" + '\''''|, ~S|sigil_PY(<<"x = \"\\\"\"\"\" + '\\''''\n">>, [])|}
        ] do
      assert source(code) == @import <> form
      assert python(source(code)) == code
    end
  end

  test "code with backslashes, interpolation or control characters is read as it is" do
    for code <- [
          "",
          "x = 1 + \\\n  2",
          ~S|print("a\nb", r"\d", '\\', "\\\\")|,
          ~S|f"#{x} {y}" "#{"|,
          "a\\",
          ~S|\"""|,
          "\t\"\"\"\n\n'''\n\\'''",
          "text = 'a\u202Ab'",
          "text = 'ä\u0000€'",
          "x = 1 + \\\n\"\"\"\n2",
          String.duplicate("x = '\u202A'\n", 5000)
        ],
        do: assert(python(source(code)) == code)
  end

  test "any code is read as it is" do
    pieces = [
      "\"",
      "\"\"\"",
      "'",
      "'''",
      "\\",
      "\n",
      " ",
      "\t",
      "\#{",
      "}",
      "x",
      "é",
      "~PY",
      "<<",
      ">>",
      "\u202A"
    ]

    :rand.seed(:exsss, 18)

    for _ <- 1..5000 do
      code = for _ <- 1..:rand.uniform(12), into: "", do: Enum.random(pieces)
      assert python(source(code)) == code, inspect(code)
    end
  end

  test "Python gets the code of each form, and a traceback has its line" do
    Snex.Livebook.start()

    for {code, expected} <- [
          {~S|len("""\"\\d""")|, 3},
          {~s|def f():\n    """Doc."""\n    return f.__doc__\nf()|, "Doc."},
          {~s|a = """\n"""\nb = '''\n'''\nlen(a + b)|, 2},
          {~S|len("\"""" + '\'''')|, 2}
        ] do
      assert {^expected, _binding} = Code.eval_string(source(code))
    end

    # The first line of the code is the fourth of the cell.
    code = source(~s|x = '''\n'''\n"""\n"""\n1 / 0|)
    error = catch_error(Code.eval_string(code, [], file: "notebook"))
    assert Exception.message(error) =~ ~s|File "notebook", line 8, in <module>|
  end

  test "the source names the interpreter, if it is not the notebook's" do
    Kino.start_child!({Snex.Interpreter, name: KinoSnex.PythonCellTest.Named, init_script: "here = 'named'"})
    attrs = %{"interpreter" => "KinoSnex.PythonCellTest.Named", "variable" => "sum", "code" => "here"}
    source = PythonCell.to_source(attrs)

    assert source ==
             ~s|import Snex.Livebook, only: [on: 2]\n\nsum = on(KinoSnex.PythonCellTest.Named, ~PY"""\nhere\n""")|

    {result, warnings} = Code.with_diagnostics(fn -> Code.eval_string(source) end)
    assert {"named", [sum: "named"]} = result
    assert warnings == []
  end

  test "only the name of an interpreter is taken for one" do
    {cell, _source} = start_smart_cell!(PythonCell, %{"code" => "1"})

    for name <- ["MyApp.Python", ":python", ""] do
      push_event(cell, "interpreter", name)
      assert_broadcast_event(cell, "interpreter", ^name, 60_000)
    end

    for name <- ["python", "nil", "MyApp.", "MyApp.Python()", "A\nB", "1"] do
      push_event(cell, "interpreter", name)
      assert_broadcast_event(cell, "interpreter", "", 60_000)
    end
  end

  test "only the name of a variable is taken for the result" do
    {cell, _source} = start_smart_cell!(PythonCell, %{"variable" => "result", "code" => "1"})
    push_event(cell, "variable", "sum_2")
    assert_smart_cell_update(cell, %{"variable" => "sum_2", "code" => "1"}, "import" <> _, 60_000)
    assert_broadcast_event(cell, "variable", "sum_2", 60_000)

    for name <- ["end", "nil", "__MODULE__", "A", "a b", "a = b", "x?", "1"] do
      push_event(cell, "variable", name)
      assert_broadcast_event(cell, "variable", "sum_2", 60_000)
    end

    push_event(cell, "variable", "")
    assert_broadcast_event(cell, "variable", "", 60_000)
  end
end
