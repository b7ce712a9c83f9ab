defmodule Snex.MakeEnvTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  # The names of an environment that the tests here have made.
  defp names(env) do
    Snex.pyeval!(env, "return [name for name in sorted(globals()) if len(name) == 1]")
  end

  describe "the arguments" do
    test "interpreter, vars and opts may each be left out, in every combination", %{inp: inp} do
      assert {:ok, empty} = Snex.make_env(inp)
      assert {:ok, a} = Snex.make_env(inp, %{"a" => 1})
      assert {:ok, copy} = Snex.make_env(inp, from: a)
      assert {:ok, ab} = Snex.make_env(inp, %{"b" => 2}, from: a)
      assert {:ok, copy_of_ab} = Snex.make_env(from: ab)
      assert {:ok, abc} = Snex.make_env(%{"c" => 3}, from: ab)

      assert Enum.map([empty, a, copy, ab, copy_of_ab, abc], &names/1) ==
               [[], ["a"], ["a"], ["a", "b"], ["a", "b"], ["a", "b", "c"]]
    end

    test "an interpreter is a pid, name, {name, node}, {:via, module, name} or {:global, name}" do
      for {server, pid} <- start_named_interpreters!() do
        assert {:ok, %Snex.Env{interpreter: ^pid} = a} = Snex.make_env(server)
        assert {:ok, %Snex.Env{interpreter: ^pid} = b} = Snex.make_env(server, %{"x" => 1})
        assert {:ok, %Snex.Env{interpreter: ^pid}} = Snex.make_env(server, %{"x" => 1}, from: [a, b])
      end
    end

    test "vars that are not a map with string keys raise ArgumentError", %{inp: inp} do
      for vars <- [%{x: 1}, %{"ok" => 1, <<0xFF>> => 1}, ~D[2026-01-01], :x, [{"x", 1}]] do
        assert_raise ArgumentError, ~r/string/, fn -> Snex.make_env(inp, vars, []) end
      end
    end

    test ":timeout ends the wait, and nothing is left of the environment", %{inp: inp} do
      os_pid = to_string(Interpreter.os_pid(inp))
      {_, 0} = System.cmd("kill", ["-STOP", os_pid])
      assert {:error, %Error{code: :response_timeout}} = Snex.make_env(inp, timeout: 50)
      waits = Task.async(fn -> Snex.make_env(inp, %{"a" => 1}, timeout: :infinity) end)
      eventually(fn -> Interpreter.info(inp).requests_in_flight == 1 end)
      {_, 0} = System.cmd("kill", ["-CONT", os_pid])
      assert {:ok, env} = Task.await(waits, 60_000)
      :erlang.garbage_collect()
      eventually(fn -> Interpreter.info(inp).environments == 1 end)
      assert names(env) == ["a"]
    end

    test "that make no sense raise ArgumentError, which names them", %{inp: inp} do
      assert_raise ArgumentError, ~r/unknown option :form/, fn -> Snex.make_env(inp, form: []) end

      assert_raise ArgumentError, ~r/option :from cannot be .*: expected an environment, /, fn ->
        Snex.make_env(inp, from: 17)
      end

      assert_raise ArgumentError, ~r/expected an interpreter, or an environment in the option :from/, fn ->
        Snex.make_env([])
      end

      assert_raise ArgumentError, ~r/expected an interpreter, or an environment in the option :from/, fn ->
        Snex.make_env(%{"x" => 1}, from: [])
      end
    end

    test "the option encoding_opts says what vars become", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp, %{"b" => "text"}, encoding_opts: [binary_as: :bytearray])
      assert Snex.pyeval(env, "return type(b).__name__") == {:ok, "bytearray"}
    end
  end

  describe "the option :from" do
    setup %{inp: inp} do
      {:ok, env: Snex.make_env!(inp, %{"a" => 1, "b" => 2, "c" => 3})}
    end

    test "is an environment, {env, only: names}, {env, except: names}, or a list of these", %{env: env} do
      for {from, expected} <- [
            {env, ["a", "b", "c"]},
            {{env, only: ["a", "c"]}, ["a", "c"]},
            {{env, only: []}, []},
            {{env, except: ["a", "z"]}, ["b", "c"]},
            {{env, except: []}, ["a", "b", "c"]},
            {[env], ["a", "b", "c"]},
            {[{env, only: ["a"]}, {env, except: ["a", "b"]}], ["a", "c"]}
          ] do
        {:ok, copy} = Snex.make_env(from: from)
        assert {from, names(copy)} == {from, expected}
      end
    end

    test "takes later environments over earlier ones, and vars over all", %{inp: inp} do
      {:ok, one} = Snex.make_env(inp, %{"a" => 1, "b" => 1, "c" => 1, "d" => 1})
      {:ok, two} = Snex.make_env(inp, %{"b" => 2, "c" => 2, "x" => 2})
      {:ok, three} = Snex.make_env(inp, %{"c" => 3, "y" => 3})

      {:ok, env} =
        Snex.make_env(inp, %{"d" => 4}, from: [one, {two, only: ["b", "c"]}, {three, except: ["y"]}])

      assert Snex.pyeval(env, "return (a, b, c, d)") == {:ok, {1, 2, 3, 4}}
      assert names(env) == ["a", "b", "c", "d"]
    end

    test "makes copies that are independent", %{env: env} do
      {:ok, copy} = Snex.make_env(from: env)
      {:ok, nil} = Snex.pyeval(copy, "a = 2")
      assert Snex.pyeval(env, "return a") == {:ok, 1}
    end

    test "gives the interpreter, if that is left out", %{inp: inp, env: env} do
      assert {:ok, %Snex.Env{interpreter: ^inp}} = Snex.make_env(from: env)
      assert {:ok, %Snex.Env{interpreter: ^inp}} = Snex.make_env(from: {env, only: ["a"]})
      assert {:ok, %Snex.Env{interpreter: ^inp}} = Snex.make_env(%{"x" => 1}, from: [{env, except: []}, env])
    end

    test "with a name that is not there: :env_key_not_found, which names it", %{env: env} do
      assert {:error, %Error{code: :env_key_not_found, reason: reason}} =
               Snex.make_env(from: {env, only: ["a", "missing"]})

      assert reason =~ "missing"
    end

    test "with an environment that is gone: :env_not_found, which names it", %{env: env} do
      Snex.destroy_env(env)
      assert {:error, %Error{code: :env_not_found, reason: reason}} = Snex.make_env(from: env)
      assert reason =~ "#{env.id}"
    end

    test "with environments of different interpreters raises ArgumentError", %{inp: inp, env: env} do
      other = start_interpreter!()
      {:ok, far} = Snex.make_env(other)
      assert_raise ArgumentError, ~r/#Snex.Env<\d+> belongs to/, fn -> Snex.make_env(inp, from: far) end
      assert_raise ArgumentError, ~r/#Snex.Env<\d+> belongs to/, fn -> Snex.make_env(from: [env, far]) end
      assert_raise ArgumentError, ~r/belongs to/, fn -> Snex.make_env(%{"x" => 1}, from: [far, env]) end
    end

    test "with :only together with :except raises ArgumentError", %{env: env} do
      for both <- [[only: ["a"], except: ["b"]], [except: ["b"], only: ["a"]]] do
        assert_raise ArgumentError, ~r/option :from cannot be .*: expected an environment, /, fn ->
          Snex.make_env(from: {env, both})
        end

        assert_raise ArgumentError, ~r/option :from cannot be .*: expected an environment, /, fn ->
          Snex.make_env(from: [{env, both}])
        end
      end
    end
  end

  test "an environment starts from what the init script left" do
    inp = start_interpreter!(init_script: {"y = 2 * x", %{"x" => 21}})
    {:ok, env} = Snex.make_env(inp)
    assert Snex.pyeval(env, "return (x, y)") == {:ok, {21, 42}}
    assert Snex.pyeval(env, "y = 0; return y") == {:ok, 0}
    assert Snex.pyeval(inp, "return y") == {:ok, 42}
  end

  describe "make_env!" do
    test "returns the environment, in every combination of arguments", %{inp: inp} do
      assert %Snex.Env{} = Snex.make_env!(inp)
      assert %Snex.Env{} = a = Snex.make_env!(inp, %{"a" => 1})
      assert %Snex.Env{} = b = Snex.make_env!(inp, from: a)
      assert %Snex.Env{} = c = Snex.make_env!(inp, %{"b" => 2}, from: b)
      assert %Snex.Env{} = Snex.make_env!(from: c)
      assert %Snex.Env{} = d = Snex.make_env!(%{"c" => 3}, from: c)
      assert Snex.pyeval!(d, "return (a, b, c)") == {1, 2, 3}
    end

    test "raises Snex.Error, and ArgumentError as ever", %{inp: inp} do
      env = Snex.make_env!(inp)
      assert_raise Error, ~r/missing/, fn -> Snex.make_env!(from: {env, only: ["missing"]}) end

      assert_raise Error, ~r/no interpreter is named :nobody_here. Start one/, fn ->
        Snex.make_env!(:nobody_here)
      end

      assert_raise ArgumentError, fn -> Snex.make_env!(inp, %{x: 1}) end
    end
  end
end
