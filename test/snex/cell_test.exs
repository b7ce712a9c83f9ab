defmodule Snex.CellTest do
  use Snex.Case, async: true

  alias Snex.Cell
  alias Snex.Display
  alias Snex.Object

  doctest Snex.Cell
  doctest Snex.Display

  @moduletag :interpreter

  setup %{inp: inp} do
    {:ok, env} = Snex.make_env(inp)
    {:ok, env: env}
  end

  describe "names/2" do
    test "finds what is assigned at the top level, and nothing of inner scopes", %{inp: inp} do
      code = """
      import os
      a, (b, *c) = 1, (2, 3)
      d: int = 1
      undefined: int
      e += 1
      for f in []:
          with open(g) as h: pass
      [i := j for j in k if (l := j)]
      def function(m=(n := 1)):
          o = p
      class Class: q = 1
      match r:
          case {"s": t, **u}: pass
          case [v, *w]: pass
      x.attribute = y["z"] = 1
      """

      assert {:ok, %{reads: reads, binds: binds, has_value: false}} = Cell.names(inp, code)
      assert Enum.sort(binds) == ~w[a b c d e f h i l t u v w]
      assert Enum.sort(reads) == ~w[e g int j k open p r x y]
    end

    test "tells whether the code ends with a value", %{inp: inp} do
      for {code, has_value} <- [
            {"", false},
            {"x = 1", false},
            {"x = 1\nx", true},
            {"x; ", false},
            {"print(1)", true}
          ] do
        assert {^code, {:ok, %{has_value: ^has_value}}} = {code, Cell.names(inp, code)}
      end
    end

    test "says where code does not parse", %{inp: inp} do
      code = %Snex.Code{src: "x = 1\nx = = 2", file: "a.livemd", line: 7}
      assert {:error, %Error{exception: %{type: "SyntaxError"}} = error} = Cell.names(inp, code)
      assert Exception.message(error) =~ "a.livemd, line 8"
    end
  end

  describe "run/4" do
    test "returns the value of the final expression", %{env: env} do
      for {code, value} <- [
            {"1 + 1", 2},
            {"1 + 1;", nil},
            {"x = 3; x", 3},
            {"'ä' + 'ö'; (\n  'ü' +\n  'ß'\n)  # comment", "üß"},
            {"x = 1", nil},
            {"", nil},
            {"import asyncio\nawait asyncio.sleep(0, 'awaited')", "awaited"},
            {"if True:\n  return 5\n6", 5},
            {"(1, [2], {'a': 3})", {1, [2], %{"a" => 3}}}
          ] do
        assert {:ok, %Cell{value: ^value, figures: []}} = Cell.run(env, code)
      end
    end

    test "binds names; what was not reached is not among them", %{env: env} do
      assert {:ok, %Cell{bound: %{"total" => 6} = bound}} =
               Cell.run(env, "total = sum(rows)\nif total < 0: never = 1", %{"rows" => [1, 2, 3]})

      assert Map.keys(bound) == ["total"]
      assert {:ok, %Cell{value: 7}} = Cell.run(env, "total + 1")
    end

    test "keeps what has a form of its own in Python", %{env: env} do
      code = """
      class Shown:
          def _repr_html_(self): return "<b>shown</b>"
      one = Shown()
      one
      """

      assert {:ok, %Cell{value: %Object{} = value, bound: %{"one" => %Object{}}}} = Cell.run(env, code)
      assert Display.of(value) == {:ok, %Display{type: "text/html", data: "<b>shown</b>"}}
    end

    test "display shows while the code runs, also in a thread", %{env: env} do
      test = self()
      display = fn display, object -> send(test, {:shown, display, object}) end
      code = "display('a')\nimport asyncio\nawait asyncio.to_thread(display, 2, 3)"
      assert {:ok, %Cell{value: nil}} = Cell.run(env, code, %{}, display: display)
      assert_received {:shown, %Display{type: "text/plain", data: "'a'"}, %Object{type: "str"}}
      assert_received {:shown, %Display{data: "2"}, _object}
      assert_received {:shown, %Display{data: "3"}, _object}
    end

    test "without a function, display prints", %{env: env} do
      assert ExUnit.CaptureIO.capture_io(fn -> Cell.run(env, "display({'a': 1})") end) == "{'a': 1}\n"
    end

    test "an exception has the traceback of the code as it was written", %{env: env} do
      code = %Snex.Code{src: "x = 1\nx / 0", file: "a.livemd", line: 3}
      assert {:error, %Error{exception: %{type: "ZeroDivisionError"}} = error} = Cell.run(env, code)
      traceback = Enum.join(error.traceback)
      assert traceback =~ ~s(File "a.livemd", line 4, in <module>)
      assert traceback =~ "\n    x / 0\n"
      # Nothing of how cells are run.
      refute traceback =~ "_display"
    end

    test "options about other binaries do not change what the code is", %{env: env} do
      opts = [encoding_opts: [binary_as: :bytes]]
      assert {:ok, %Cell{value: true}} = Cell.run(env, "text == b'a'", %{"text" => "a"}, opts)

      assert {:ok, %Cell{value: 2}} =
               Cell.run(env, "import asyncio\nx = await asyncio.sleep(0, 2); x", %{}, run: :thread)
    end
  end

  describe "of/2" do
    test "chooses the first form that there is", %{inp: inp} do
      for {methods, type, data} <- [
            {%{"mimebundle" => ~S|{"text/plain": "p", "image/png": "UE5H", "text/latex": "$x$"}|},
             "image/png", "PNG"},
            {%{"mimebundle" => ~S|({"application/vnd.vegalite.v5+json": {"a": 1}, "text/html": "h"}, {})|},
             "application/vnd.vegalite+json", ~S|{"a": 1}|},
            {%{"mimebundle" => ~S|{"text/plain": "p"}|, "html" => "None", "svg" => "'<svg/>'"},
             "image/svg+xml", "<svg/>"},
            {%{"mimebundle" => ~S|{"text/plain": "p"}|}, "text/plain", "p"},
            {%{"png" => "b'PNG'", "jpeg" => "b'JPEG'"}, "image/png", "PNG"},
            {%{"jpeg" => "b'JPEG'", "markdown" => "'*m*'"}, "image/jpeg", "JPEG"},
            {%{"markdown" => "'*m*'", "latex" => "'$x$'"}, "text/markdown", "*m*"},
            {%{"latex" => "'$x$'"}, "text/latex", "$x$"},
            {%{}, "text/plain", "T()"}
          ] do
        methods = for {name, value} <- methods, do: "    def _repr_#{name}_(self, **_): return #{value}\n"
        code = "import snex\nclass T:\n    def __repr__(self): return 'T()'\n#{methods}return snex.keep(T())"
        object = Snex.pyeval!(inp, code)
        assert Display.of(object) == {:ok, %Display{type: type, data: data}}
      end
    end

    test "a registered renderer comes first, also for subclasses", %{inp: inp} do
      code = """
      class Base:
          def _repr_html_(self): return "own"
      class Derived(Base): pass
      snex.register_renderer(Base, lambda self: {"text/markdown": "*registered*"})
      return snex.keep(Derived())
      """

      assert Display.of(Snex.pyeval!(inp, code)) ==
               {:ok, %Display{type: "text/markdown", data: "*registered*"}}
    end

    test "an exception in the object's method is an error", %{inp: inp} do
      code = "class T:\n    def _repr_html_(self): raise ValueError('broken')\nreturn snex.keep(T())"
      assert {:error, %Error{reason: "broken"}} = Display.of(Snex.pyeval!(inp, code))
    end
  end
end
