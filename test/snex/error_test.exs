defmodule Snex.ErrorTest do
  use Snex.Case, async: true

  alias Snex.Error
  alias Snex.Serde.Decoder

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  describe "the code" do
    @describetag :interpreter

    test ":python_runtime_error: the reason is str(exception), with traceback and exception", %{inp: inp} do
      code = """
      class Strange(Exception):
          def __str__(self):
              return "strange " + repr(self.args)
      raise Strange(1, 2)
      """

      assert {:error, %Error{code: :python_runtime_error, reason: "strange (1, 2)"} = error} =
               Snex.pyeval(inp, code)

      assert %{type: "Strange", module: "__main__"} = error.exception

      assert List.last(error.traceback) == "Strange: strange (1, 2)\n" or
               List.last(error.traceback) =~ "Strange:"
    end

    test ":env_not_found: the reason names the environment", %{inp: inp} do
      env = Snex.make_env!(inp)
      Snex.destroy_env(env)
      assert {:error, %Error{code: :env_not_found, reason: reason}} = Snex.pyeval(env, "return 1")
      assert reason == "no environment with id #{env.id}"
    end

    test ":env_key_not_found: the reason names the variable and the environment", %{inp: inp} do
      env = Snex.make_env!(inp)

      assert {:error, %Error{code: :env_key_not_found, reason: reason}} =
               Snex.make_env(from: {env, only: ["missing"]})

      assert reason == "no variable 'missing' in environment #{env.id}"
    end

    test ":response_timeout: no answer in time", %{inp: inp} do
      for call <- [
            &Snex.pyeval(&1, "import asyncio; await asyncio.Event().wait()", timeout: 10),
            &Snex.pyeval(&1, "import time; time.sleep(0.5)", timeout: 10),
            &Snex.make_env(&1, timeout: 0)
          ] do
        # An environment may be there at once.
        with {:error, error} <- call.(inp) do
          assert %Error{code: :response_timeout, reason: nil} = error

          assert Exception.message(error) =~
                   ~r/^Python did not answer within (10|0) ms \(the option :timeout\)$/
        end
      end

      assert {:error, _} = Snex.pyeval(inp, "import asyncio; await asyncio.Event().wait()", timeout: 10)
    end

    test ":init_script_timeout: no start in time" do
      for {options, message} <- [
            {[init_script: "import asyncio; await asyncio.Event().wait()"],
             "the init script did not end within 2000 ms"},
            {[wrap_exec: fn _python, _args -> {"sleep", ["1000"]} end], "Python did not start within 2000 ms"}
          ] do
        assert {:error, %Error{code: :init_script_timeout, reason: nil} = error} =
                 Interpreter.start_link([init_script_timeout: 2_000] ++ options)

        assert Exception.message(error) == message <> " (the option :init_script_timeout)"
      end
    end

    test ":call_failed: there is nobody to answer, and the reason says why", %{inp: inp} do
      Interpreter.stop(inp)

      for {:error, error} <- [Snex.pyeval(inp, "return 1"), Snex.make_env(inp)] do
        assert %Error{code: :call_failed, reason: :noproc} = error
        assert Exception.message(error) == "the interpreter #{inspect(inp)} has ended"
      end
    end

    test ":call_failed: the name of one that was not started is named, and how to start it" do
      for {name, how} <- [
            {:nobody, "Start one with `{Snex.Interpreter, name: :nobody}` under a supervisor"},
            {Agent, "Start it with `{Agent, name: Agent}` under a supervisor"},
            {Enum, "Start one with `{Snex.Interpreter, name: Enum}` under a supervisor"},
            {Snex.Interpreter,
             "Start it with `{Snex.Interpreter, name: Snex.Interpreter}` under a supervisor"},
            {{:global, :nobody}, "Start one with `name: {:global, :nobody}`"}
          ],
          {:error, error} <- [Snex.pyeval(name, "return 1"), Snex.make_env(name)] do
        assert %Error{code: :call_failed, reason: :noproc} = error

        assert Exception.message(error) ==
                 "no interpreter is named #{inspect(name)}. #{how}, or with start_link/1"
      end
    end

    test ":call_failed: a module that nobody has defined may be a misspelling" do
      assert {:error, %Error{code: :call_failed, reason: :noproc} = error} =
               Snex.pyeval(Agent.Nobody, "return 1")

      assert Exception.message(error) ==
               "no interpreter is named Agent.Nobody, and there is no module Agent.Nobody. If one with " <>
                 "`use Snex.Interpreter` is meant, check the spelling of its name; an interpreter without a module " <>
                 "starts with `{Snex.Interpreter, name: Agent.Nobody}` under a supervisor, or with start_link/1"
    end

    test ":interpreter_exited: a call that comes afterwards isn't said to have ended it" do
      # While a module's process is suspended, its name leads to an interpreter that has ended.
      {:ok, inp} = Interpreter.start_link()
      :sys.suspend(inp)

      assert {:error, %Error{code: :interpreter_exited, details: details} = error} =
               Snex.pyeval(inp, "import os; os._exit(7)")

      assert details == %{}
      assert Exception.message(error) == "Python exited with status 7"

      for {:error, error} <- [Snex.pyeval(inp, "return 1"), Snex.make_env(inp)] do
        assert %Error{code: :interpreter_exited, reason: {:exit_status, 7}, details: %{earlier: true}} = error

        assert Exception.message(error) ==
                 "the interpreter had ended before this call: Python exited with status 7"
      end

      :sys.resume(inp)
      assert_receive {:EXIT, ^inp, _}, 60_000
    end

    test ":interpreter_exited: Python ended on its own, and the reason has its exit status" do
      {:ok, inp} = Interpreter.start_link()

      assert {:error, %Error{code: :interpreter_exited, reason: {:exit_status, 7}} = error} =
               Snex.pyeval(inp, "import os; os._exit(7)")

      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end

    test ":internal_error: the conversation broke, and the reason says how" do
      {:ok, inp} = Interpreter.start_link(output: :discard)
      # Where the frames of Python go to the VM.
      assert {:error, %Error{code: :internal_error, reason: reason} = error} =
               Snex.pyeval(inp, "import os, time; os.write(4, b'garbage' * 10); time.sleep(1000)")

      assert reason =~ "garbage"
      assert_receive {:EXIT, ^inp, ^error}, 60_000
    end
  end

  describe "the traceback" do
    @describetag :interpreter

    test "is a list of strings, exactly as traceback.format_exception gives", %{inp: inp} do
      # Code in a file: what Python itself shows of code without one is not the same.
      path = Path.join(System.tmp_dir!(), "snex_traceback_#{System.unique_integer([:positive])}.py")
      on_exit(fn -> File.rm(path) end)

      source = """
      import traceback

      class Odd(Exception):
          pass

      def fail():
          try:
              1 / 0
          except ZeroDivisionError as error:
              raise Odd("two\\nlines") from error

      try:
          fail()
      except Odd as error:
          expected = traceback.format_exception(error)
          raise
      """

      File.write!(path, source)
      {:ok, env} = Snex.make_env(inp)
      assert {:error, error} = Snex.pyeval(env, %Snex.Code{src: source, file: path})
      {:ok, expected} = Snex.pyeval(env, "return [line for line in expected if '/snex/_' not in line]")
      # In Python each source has a file name of its own, from which `linecache` knows its lines.
      assert error.traceback == Enum.map(expected, &String.replace(&1, ~r/<(.*) [0-9a-f]+>/, "\\1"))
      assert Enum.all?(error.traceback, &String.ends_with?(&1, "\n"))
      assert length(expected) > 6
    end
  end

  describe "the exception" do
    @describetag :interpreter

    test "is a map of type, module, notes and cause; a cause is such a map, and so on", %{inp: inp} do
      code = """
      import json
      try:
          try:
              json.loads("{")
          except ValueError as error:
              raise KeyError("second") from error
      except KeyError as error:
          third = RuntimeError("third")
          third.__notes__ = ["a note", "and another"]
          raise third from error
      """

      assert {:error, %Error{exception: exception}} = Snex.pyeval(inp, code)

      assert exception == %{
               type: "RuntimeError",
               module: "builtins",
               notes: ["a note", "and another"],
               cause: %{
                 type: "KeyError",
                 module: "builtins",
                 notes: [],
                 cause: %{type: "JSONDecodeError", module: "json.decoder", notes: [], cause: nil}
               }
             }
    end

    test "has notes: [] and cause: nil where there are none", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "raise ValueError('x')")
      assert error.exception == %{type: "ValueError", module: "builtins", notes: [], cause: nil}
    end
  end

  describe "message/1" do
    test "reads well in a log, for every code" do
      messages = %{
        %Error{code: :response_timeout} => "Python did not answer in time",
        %Error{code: :init_script_timeout} => "Python did not start in time",
        %Error{code: :env_not_found, reason: "no environment 7"} => "env_not_found: no environment 7",
        %Error{code: :env_key_not_found, reason: "no 'x'"} => "env_key_not_found: no 'x'",
        %Error{code: :call_failed, reason: :shutdown} => "call_failed: :shutdown",
        %Error{code: :call_failed, reason: :noproc} => "there is no such interpreter, or it is gone",
        %Error{code: :interpreter_exited, reason: {:exit_status, 1}} => "Python exited with status 1",
        %Error{code: :call_failed, reason: :stuck} =>
          "the interpreter was ended because a request was stuck (the option :on_stuck)",
        %Error{code: :call_failed, reason: %RuntimeError{message: "no"}} =>
          "call_failed: ** (RuntimeError) no",
        %Error{code: :internal_error, reason: "x"} => "internal_error: x"
      }

      for {error, message} <- messages, do: assert(Exception.message(error) == message)
    end

    @tag :interpreter
    test "has the exception and its traceback", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "def fail():\n    raise ValueError('no good')\nfail()")

      assert Exception.message(error) =~
               ~r/\AValueError: no good\n\nTraceback \(most recent call last\):\n.*\nValueError: no good\z/s
    end
  end

  describe "message/1 on a module that is missing" do
    @describetag :interpreter
    @advice "\nPackages come from the dependencies of the interpreter's module (:pyproject_toml, :project_path), or are " <>
              "installed in the Python that :python names. Modules of your own come from the folders of :python_path."

    test "says where packages and modules come from", %{inp: inp} do
      missing = "No module named 'no_such_package'"

      for code <- ["import no_such_package", "import no_such_package.part", "from no_such_package import x"] do
        assert {:error, %Error{reason: ^missing} = error} = Snex.pyeval(inp, code)
        assert Exception.message(error) =~ "ModuleNotFoundError: #{missing}#{@advice}\n\nTraceback"
      end

      assert {:error, %Error{reason: reason} = error} = Snex.call(inp, "no_such_package.run", [])
      assert reason =~ "is neither a name in the environment nor a module"
      assert Exception.message(error) == "NameError: #{reason}#{@advice}"

      assert {:error, error} = Snex.call(inp, {"no_such_package", "run"}, [])
      assert Exception.message(error) == "ModuleNotFoundError: #{missing}#{@advice}"
    end

    test "does not if a part of a package is missing, or a name is unknown", %{inp: inp} do
      for code <- ["import json.part", "import sys.part", "from json import part", "return part"] do
        assert {:error, error} = Snex.pyeval(inp, code)
        refute Exception.message(error) =~ "dependencies"
      end
    end
  end

  describe "a traceback without a line of code" do
    @describetag :interpreter

    test "is not shown: it only repeats the exception", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return object()")
      assert [line] = error.traceback
      assert Exception.message(error) == String.trim_trailing(line)
      assert inspect(error) == "#Snex.Error<python_runtime_error: #{String.trim_trailing(line)}>"

      # Its class has a module's name in front of it, there.
      error = %Error{error | reason: "no", traceback: ["odd.things.Odd: no\n"]}
      error = %{error | exception: %{type: "Odd", module: "odd.things"}}
      assert Exception.message(error) == "Odd: no"
    end

    test "is shown if it has a note", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "return object()")
      error = %{error | traceback: error.traceback ++ ["a note\n"]}
      assert Exception.message(error) =~ ~r/\ATypeError: [^\n]+\n\nTypeError: [^\n]+\na note\z/
    end
  end

  describe "a text of several lines" do
    @describetag :interpreter

    test "is shown once: its first line, and all of it in the traceback", %{inp: inp} do
      code = "await f()"
      assert {:error, error} = Snex.pyeval(inp, code, %{"f" => fn -> raise "out of paper" end})
      message = Exception.message(error)
      assert message =~ ~r/\AElixirError: \*\* \(RuntimeError\) out of paper\n\nTraceback/

      assert message =~
               ~r/^snex.ElixirError: \*\* \(RuntimeError\) out of paper\n    test\/snex\/error_test.exs:/m

      for text <- [message, inspect(error)],
          do: assert([_] = Regex.scan(~r/test\/snex\/error_test.exs:/, text))

      # Empty lines, too.
      assert {:error, error} = Snex.pyeval(inp, "raise ValueError('one\\n\\ntwo')")

      assert Exception.message(error) =~
               ~r/\AValueError: one\n\nTraceback.*\nValueError: one\n\ntwo\z/s

      assert [_] = Regex.scan(~r/two>?$/m, inspect(error))
    end

    test "is shown in full if the traceback lacks a part of it, or is not shown", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "raise ValueError('one\\ntwo')")
      assert Exception.message(%{error | traceback: nil}) == "ValueError: one\ntwo"
      assert Exception.message(%{error | traceback: ["cut off\n"]}) == "ValueError: one\ntwo\n\ncut off"

      # Of which `inspect/1` shows the end.
      assert {:error, error} = Snex.pyeval(inp, "raise ValueError('\\n'.join(map(str, range(20))))")
      assert inspect(error) =~ "ValueError: 0\n1\n2\n"
    end
  end

  describe "inspect/1" do
    test "says what the code and the first line of the message say" do
      for {error, text} <- %{
            %Error{code: :response_timeout} => "#Snex.Error<response_timeout: Python did not answer in time>",
            %Error{code: :env_not_found, reason: "no environment 7"} =>
              "#Snex.Error<env_not_found: no environment 7>",
            %Error{code: :call_failed, reason: :shutdown} => "#Snex.Error<call_failed: :shutdown>"
          } do
        assert inspect(error) == text
        assert inspect({:error, error}) == "{:error, #{text}}"
      end
    end

    @tag :interpreter
    test "has the end of the traceback, a line each", %{inp: inp} do
      assert {:error, error} = Snex.pyeval(inp, "raise ValueError('no good')")

      assert ["#Snex.Error<python_runtime_error: ValueError: no good", "  Traceback" <> _ | lines] =
               lines(error)

      assert List.last(lines) == "  ValueError: no good>"

      code = "def fail(n):\n    return fail(n - 1) or n if n else 1 / 0\nfail(100)"
      assert {:error, error} = Snex.pyeval(inp, code)
      assert ["#Snex.Error<python_runtime_error: ZeroDivisionError: " <> _, "  ..." | lines] = lines(error)
      assert length(lines) == 10
      assert List.last(lines) == "  ZeroDivisionError: division by zero>"
    end

    test "is what a supervisor shows of a start that failed: text and traceback, a line each" do
      Process.flag(:trap_exit, true)
      children = [{Interpreter, name: :does_not_start, init_script: "import no_such_module"}]
      {:error, reason} = Supervisor.start_link(children, strategy: :one_for_one)

      assert [
               "shutdown: failed to start child: :does_not_start",
               "    ** (EXIT) #Snex.Error<python_runtime_error: ModuleNotFoundError: No module named 'no_such_module'",
               "  Traceback (most recent call last):" | _
             ] = reason |> Exception.format_exit() |> String.split("\n")
    end

    defp lines(error), do: error |> inspect() |> String.split("\n")
  end

  test "an error from Python that is none becomes an internal error" do
    assert %Error{code: :internal_error, reason: reason} =
             Decoder.error(:erlang.term_to_binary(%{"code" => "x"}))

    assert reason =~ ~s(%{"code" => "x"})
    assert %Error{code: :internal_error} = Decoder.error("garbage")
  end
end
