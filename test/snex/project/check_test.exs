defmodule Snex.Project.CheckTest do
  # Mistakes in a pyproject.toml become compile errors. What counts as one is tested in Rust (project/tests.rs).
  use ExUnit.Case, async: true

  alias Snex.Project.Check

  @moduletag :tmp_dir

  # Compiles a file with this content; returns the error, and its description as lines.
  defp compile_error(context, content) do
    file = Path.join(context.tmp_dir, "defined.ex")
    File.write!(file, content)
    error = assert_raise CompileError, fn -> Code.compile_file(file) end
    [_, _ | places] = error.description |> String.trim_trailing() |> String.split("\n")
    {error, Enum.map(places, &String.trim/1)}
  end

  defp place(context, rest), do: "#{Path.relative_to_cwd(context.tmp_dir)}/#{rest}"

  test "of a heredoc: all of them, with line and column of the Elixir file", context do
    {error, places} =
      compile_error(context, ~S'''
      # The text of another module, which is not meant.
      defmodule Snex.CheckTest.Other do
        @toml """
        [project]
        name = "a project"
        """
        def toml, do: @toml
      end

      defmodule Snex.CheckTest.Heredoc do
        use Snex.Interpreter,
          uv: "never started",
          pyproject_toml: """
          [project]
          name = "a project"
          version = "0.0.0"

          dependencies = [
            "numpy>=2",
            "pandas=2.1",
          ]
          """
      end
      ''')

    assert error.file == Path.join(context.tmp_dir, "defined.ex")
    assert error.line == 14
    assert error.description =~ "the Python project of Snex.CheckTest.Heredoc cannot be installed"

    assert [python, name] = places
    assert python =~ place(context, "defined.ex:14:5: project.requires-python is not there")
    assert name =~ place(context, "defined.ex:15:13: project.name: `a project` cannot be a name")
  end

  test "of a text in an attribute above, with an interpolation", context do
    {error, places} =
      compile_error(context, ~S'''
      defmodule Snex.CheckTest.Attribute do
        @name "attribute"
        @toml """
        [project]
        name = "#{@name}"
        version = "0.0.0"
        requires-python = "3.10"
        """

        use Snex.Interpreter, pyproject_toml: @toml, uv: "never started"
      end
      ''')

    assert error.line == 7
    assert [python] = places
    assert python =~ place(context, "defined.ex:7:22: project.requires-python: `3.10` is one version")
  end

  test "of a text that is written in another way: at the `use`, with line and column of the TOML", context do
    {error, places} =
      compile_error(context, ~S'''
      defmodule Snex.CheckTest.String do
        use Snex.Interpreter, pyproject_toml: "[project]\nname = 'a'\nversion = '0.0.0'\n", uv: "never started"
      end
      ''')

    assert {error.file, error.line} == {Path.join(context.tmp_dir, "defined.ex"), 2}
    assert ["pyproject_toml:1:1: project.requires-python is not there" <> _] = places
  end

  test "of a project folder: with line and column of its pyproject.toml", context do
    toml = Path.join(context.tmp_dir, "pyproject.toml")
    File.write!(toml, "\n[project]\nname = 'a'\nversion = 1.0\nrequires-python = '>=3.10\n")

    module = """
    defmodule Snex.CheckTest.Folder do
      use Snex.Interpreter, project_path: #{inspect(context.tmp_dir)}, uv: "never started"
    end
    """

    {error, places} = compile_error(context, module)
    assert {error.file, error.line} == {toml, 5}
    assert [syntax] = places

    assert syntax =~
             place(context, "pyproject.toml:5:26: this is not TOML: invalid literal string, expected `'`")

    File.write!(toml, "\n[project]\nname = 'a'\nversion = 1.0\nrequires-python = '>=3.10'\n")
    {error, places} = compile_error(context, module)
    assert error.line == 4
    assert [version] = places
    assert version =~ place(context, "pyproject.toml:4:11: project.version is a float")
  end

  @good "[project]\nname = 'a'\nversion = '0.0.0'\nrequires-python = '>=3.10'\n"

  test "what is no text at all" do
    assert {:error, [{2, 8, "this is not UTF-8"}]} = Check.check({:toml, "[project]\nname = \xff"})
    assert Check.check({:toml, @good}) == :ok
  end

  test "of a dependency string: uv's words, once, at its place", context do
    for {toml, {line, column}, words} <- [
          {~s(dependencies = [\n  "pluggy",\n  "iniconfig=2",\n]\n), {12, 8}, "no such comparison operator"},
          {~s([dependency-groups]\ng = ["a b"]\n), {11, 11}, "`a b`"},
          {~s([tool.uv.sources]\na = 3\n), {11, 9}, "invalid type"}
        ] do
      file = Path.join(context.tmp_dir, "refused.ex")
      indented = String.replace(@good <> toml, ~r/^(?=.)/m, "    ")

      File.write!(file, """
      defmodule Snex.CheckTest.Refused do
        use Snex.Interpreter,
          python_preference: :system,
          pyproject_toml: \"""
      #{indented}    \"""
      end
      """)

      {error, output} =
        ExUnit.CaptureIO.with_io(fn ->
          assert_raise CompileError, fn -> Code.compile_file(file) end
        end)

      on_exit(fn ->
        File.rm_rf!(Path.join([Mix.Project.build_path(), "snex", "projects", "Snex.CheckTest.Refused"]))
      end)

      assert {error.file, error.line} == {file, line - 1}, Exception.message(error)
      assert error.description =~ "(see #{Path.relative_to_cwd(file)}:#{line - 1}:#{column})"
      assert error.description =~ words
      refute error.description =~ "Traceback"
      refute output =~ "error:"
    end
  end

  test "an unknown key is warned of, with file, line and the nearest known one", context do
    file = Path.join(context.tmp_dir, "warned.ex")

    File.write!(file, """
    defmodule Snex.CheckTest.Warned do
      use Snex.Interpreter,
        uv: "no such uv",
        pyproject_toml: \"""
        [project]
        name = "a"
        version = "0.0.0"
        requires-python = ">=3.10"
        dependncies = ["numpy"]

        [dependency-group]
        dev = []

        [elsewhere]
        \"""
    end
    """)

    warnings =
      ExUnit.CaptureIO.capture_io(:stderr, fn ->
        assert_raise CompileError, fn -> Code.compile_file(file) end
      end)

    assert warnings =~
             "`dependncies` in [project] is unknown, and has no effect, did you mean `dependencies`?"

    assert warnings =~ "warned.ex:9"

    assert warnings =~
             "`dependency-group` at the top level is unknown, and has no effect, did you mean `dependency-groups`?"

    assert warnings =~ "warned.ex:11"
    assert warnings =~ "`elsewhere` at the top level is unknown, and has no effect\n"
  end
end
