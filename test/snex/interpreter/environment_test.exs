defmodule Snex.Interpreter.EnvironmentTest do
  use Snex.Case, async: true

  setup do
    Process.flag(:trap_exit, true)
    :ok
  end

  defp variables(option, names) do
    inp = start_interpreter!(environment: option)
    Snex.pyeval!(inp, "import os; return [os.environ.get(name) for name in names]", %{"names" => names})
  end

  test "values are strings, functions that return one, and nil, which unsets" do
    names = ["A", "B", "C", "HOME"]
    test = self()

    values = %{
      "A" => "1",
      "B" => fn -> send(test, {:called, "2"}) |> elem(1) end,
      "C" => {String, :upcase, ["three"]},
      "HOME" => nil
    }

    assert variables(values, names) == ["1", "2", "THREE", nil]
    assert_received {:called, "2"}
    assert [_a, "2", "THREE", nil] = variables({:only, values}, names)
    assert [home] = variables(%{"B" => fn -> nil end}, ["HOME"])
    assert home == System.get_env("HOME")
    assert variables(%{"HOME" => fn -> nil end}, ["HOME"]) == [nil]
  end

  test "a function that fails, or returns something else, is an error of the start that names the variable" do
    for {function, complaint} <- [
          {fn -> raise "no vault" end, "failed: ** (RuntimeError) no vault"},
          {fn -> throw(:ball) end, "failed: ** (throw) :ball"},
          {fn -> exit(:gone) end, "failed: ** (exit) :gone"},
          {{Snex.Nowhere, :value, ["x"]}, "failed: ** (UndefinedFunctionError)"},
          {fn -> :word end, "returned neither nil nor a string without NUL"},
          {fn -> "a\0b" end, "returned neither nil nor a string without NUL"},
          {fn -> fn -> "a" end end, "returned neither nil nor a string without NUL"}
        ] do
      assert {:error, %Error{code: :call_failed} = error} =
               Interpreter.start_link(environment: %{"WORD" => function})

      assert Exception.message(error) =~ "the function for \"WORD\" in the option :environment #{complaint}"
    end
  end

  test "an init script may be a function that returns it; one that fails is an error of the start" do
    for script <- [fn -> "x = 1" end, fn -> {"x = y", %{"y" => 1}} end, {String, :trim, ["  x = 1"]}] do
      assert Snex.pyeval(start_interpreter!(init_script: script), "return x") == {:ok, 1}
    end

    for {function, complaint} <- [
          {fn -> raise "no script" end,
           "the function in the option :init_script failed: ** (RuntimeError) no script"},
          {fn -> :word end, "expected code as a string or a Snex.Code, got: :word"},
          {fn -> {"x", %{a: 1}} end,
           "names of variables have to be strings in UTF-8, got: :a; write %{\"a\" => ...}"},
          {fn -> fn -> "x = 1" end end, "the function in the option :init_script returned another function"}
        ] do
      assert {:error, %Error{code: :call_failed} = error} = Interpreter.start_link(init_script: function)
      assert Exception.message(error) =~ complaint
    end
  end

  test "a :cd that is not there, or no folder, is named" do
    for folder <- ["/nowhere", __ENV__.file] do
      assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.start_link(cd: folder)
      assert reason == "no folder at #{inspect(folder)}, which is the option :cd"
    end

    assert Snex.pyeval(start_interpreter!(cd: ["/", ~c"tmp"]), "import os; return os.getcwd()") ==
             {:ok, "/tmp"}
  end

  test "what :wrap_exec returns is checked" do
    for wrong <- [
          :x,
          {"python", "-m"},
          {"python", [1]},
          {~c"python", []},
          {"python\0", []},
          {"python", ["a\0"]}
        ] do
      assert {:error, %Error{code: :call_failed, reason: reason}} =
               Interpreter.start_link(wrap_exec: fn _python, _args -> wrong end)

      assert reason == "the function in :wrap_exec did not return {executable, args}, as strings without NUL"
    end
  end

  test "the least number of open files is enough to start, to use a thread and to run a program" do
    for {_name, python} <- pythons() do
      inp = start_interpreter!(python: python, limits: [open_files: 16])

      code =
        "import asyncio, subprocess; await asyncio.to_thread(int); return subprocess.run(['true']).returncode"

      assert Snex.pyeval(inp, code, timeout: 60_000) == {:ok, 0}
    end

    assert_raise ArgumentError,
                 ~r/option :open_files of :limits cannot be 15: expected an integer from 16 to /,
                 fn ->
                   Interpreter.start_link(limits: [open_files: 15])
                 end
  end
end
