defmodule Snex.Interpreter.AllowTest do
  use Snex.Case, async: true

  import ExUnit.CaptureLog

  describe "the option allow" do
    defp call(inp, call) do
      code = "try:\n    return await #{call}\nexcept snex.ElixirError as e:\n    return str(e)"
      {:ok, result} = Snex.pyeval(inp, code)
      result
    end

    test "is :all by default" do
      for opts <- [[], [allow: :all]] do
        inp = start_interpreter!(opts)
        assert call(inp, "Elixir.String.upcase('a')") == "A"
        assert call(inp, "snex.call('erlang', 'abs', [-1])") == 1
      end
    end

    test "is a list of Module, {Module, fun} and {Module, fun, arity}: the rest is refused by name" do
      inp = start_interpreter!(allow: [String, {Enum, :sum}, {:erlang, :abs, 1}])
      assert call(inp, "Elixir.String.upcase('a')") == "A"
      assert call(inp, "Elixir.Enum.sum([1, 2])") == 3
      assert call(inp, "snex.call('erlang', 'abs', [-1])") == 1

      assert call(inp, "Elixir.Enum.count([1])") =~
               "Enum.count/1 is not among the functions that Python may call"

      assert call(inp, "snex.call('erlang', 'abs', [])") =~ ":erlang.abs/0 is not among"
    end

    test ":none refuses all, before any atom is made" do
      inp = start_interpreter!(allow: :none)
      name = "Elixir.NeverHeardOf#{System.unique_integer([:positive])}"
      assert call(inp, "snex.call('#{name}', 'fun', [])") =~ "is not among"
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
    end

    @doc false
    def count(_one), do: 1
    @doc false
    def count(_one, _two), do: 2

    # A CALL with arguments `[1 | [2]]` in two parts, as the encoder never writes them.
    @forged """
    import asyncio
    from snex._elixir import client
    from snex._wire import frame
    from snex._elixir.answers import value_of

    def atom(name):
        return b"w" + bytes([len(name)]) + name.encode()

    names = atom("nil") + atom("Elixir.Snex.Interpreter.AllowTest") + atom("count")
    body = b"\\x83h\\x05" + names + b"l\\0\\0\\0\\1a\\1" + tail + b"t\\0\\0\\0\\0"
    answer = asyncio.get_running_loop().create_future()
    client.current().pass_on(frame.CALL, [body], answer.set_result)
    try:
        return value_of(await answer)
    except snex.ElixirError as error:
        return str(error)
    """

    test "holds for the number of arguments, however Python writes their list" do
      proper = Serde.binary("j")
      in_parts = Serde.binary("l" <> <<1::32>> <> "a" <> <<2>> <> "j")

      inp = start_interpreter!(allow: [{__MODULE__, :count, 1}])
      assert Snex.pyeval(inp, @forged, %{"tail" => proper}) == {:ok, 1}
      assert {:ok, message} = Snex.pyeval(inp, @forged, %{"tail" => in_parts})
      assert message =~ "Snex.Interpreter.AllowTest.count/2 is not among the functions that Python may call"

      # Where it may be called, the same frame calls it.
      inp = start_interpreter!(allow: [{__MODULE__, :count}])
      assert Snex.pyeval(inp, @forged, %{"tail" => in_parts}) == {:ok, 2}
    end

    test "refuses before an atom of the arguments is made" do
      inp = start_interpreter!(allow: [{__MODULE__, :count, 1}])
      name = "never_heard_of_#{System.unique_integer([:positive])}"

      for call <- [
            "Elixir.String.upcase(snex.Atom('#{name}'))",
            "snex.call('Elixir.Snex.Interpreter.AllowTest', 'count', [1, snex.Atom('#{name}')])",
            "snex.call('Elixir.Snex.Interpreter.AllowTest', '#{name}', [])",
            "snex.call('erlang', 'abs', [-1], node='#{name}@nowhere')"
          ] do
        assert call(inp, call) =~ "is not among the functions that Python may call"
      end

      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      assert_raise ArgumentError, fn -> String.to_existing_atom(name <> "@nowhere") end
    end

    @apply """
    from snex._etf.functions import Function
    try:
        return await f()
    except snex.ElixirError as error:
        return str(error)
    """

    @refused "a function that Elixir has not handed to this interpreter is not among the functions that Python may call"

    test "says nothing about functions that Elixir has passed, wherever they are called" do
      inp = start_interpreter!(allow: :none)
      assert Snex.pyeval(inp, "return await f(20)", %{"f" => &(&1 + 1)}) == {:ok, 21}
      assert Snex.pyeval(inp, "return await f([1, 2])", %{"f" => &Enum.sum/1}) == {:ok, 3}
      # In what Elixir returns, copied, pickled, and after a way back and forth.
      {:ok, fun} =
        Snex.pyeval(inp, "import copy, pickle\nreturn pickle.loads(pickle.dumps(copy.deepcopy(f)))", %{
          "f" => &Enum.sum/1
        })

      assert Snex.pyeval(
               inp,
               "import copy, pickle\nreturn await pickle.loads(pickle.dumps(copy.deepcopy(f)))([3])",
               %{"f" => fun}
             ) == {:ok, 3}

      assert Snex.pyeval(inp, "return await (await f())()", %{"f" => fn -> fn -> :inner end end}) ==
               {:ok, :inner}

      callback = Serde.callback(&(&1 * 2))

      assert Snex.pyeval(inp, "return [f(n) for n in range(3)]", %{"f" => callback}, run: :thread) ==
               {:ok, [0, 2, 4]}

      # It can be given to others, who are not asked.
      assert call(inp, "snex.call('erlang', 'abs', [-1])") =~ ":erlang.abs/1 is not among"
    end

    test "refuses functions that Python has made up" do
      halt = Serde.binary(:erlang.term_to_binary(&System.halt/0))
      other = start_interpreter!(allow: :none)
      {:ok, signature} = Snex.pyeval(other, "return f._signature", %{"f" => &System.halt/0})
      assert byte_size(signature) == 32

      for rules <- [:none, [String]],
          made <- [
            "Function(halt)",
            "Function(halt, bytes(32))",
            "Function(halt, sum._signature)",
            "Function(halt, sum._signature[:31])",
            "Function(halt, other)",
            "Function(sum[:-2] + bytes([97, 0]), sum._signature)"
          ] do
        inp = start_interpreter!(allow: rules)

        vars = %{"halt" => halt, "sum" => &Enum.sum/1, "other" => Serde.binary(signature)}
        {:ok, env} = Snex.make_env(inp, vars)
        code = String.replace(@apply, "try:", "f = #{made}\ntry:")
        assert {:ok, message} = Snex.pyeval(env, code)
        assert message =~ @refused
      end

      # Nor does a body that is written in another way, or decodes to something else.
      inp = start_interpreter!(allow: :none)

      code = """
      import asyncio
      from snex._elixir import client
      from snex._wire import frame
      from snex._elixir.answers import value_of

      answer = asyncio.get_running_loop().create_future()
      client.current().pass_on(frame.APPLY, [body], answer.set_result)
      try:
          return value_of(await answer)
      except snex.ElixirError as error:
          return str(error)
      """

      function = :erlang.term_to_binary(&System.halt/0)

      for body <- [
            :erlang.term_to_binary({"", function, [], nil}, [:compressed]),
            :erlang.term_to_binary([signature, function, [], nil]),
            <<131, 80, 0, 0, 0, 1>>,
            ""
          ] do
        assert {:ok, message} = Snex.pyeval(inp, code, %{"body" => Serde.binary(body)})
        assert message =~ @refused or message =~ "a call that cannot be understood"
      end
    end

    test ":all calls what Python has made up, too, and signs nothing" do
      inp = start_interpreter!()
      node = Serde.binary(:erlang.term_to_binary(&Node.self/0))
      code = String.replace(@apply, "try:", "f = Function(node)\ntry:")
      assert Snex.pyeval(inp, code, %{"node" => node}) == {:ok, node()}
      assert Snex.pyeval(inp, "return f._signature", %{"f" => &System.halt/0}) == {:ok, ""}
      # What is no function at all is an error of the call.
      assert {:ok, message} =
               Snex.pyeval(inp, String.replace(@apply, "try:", "f = Function(b'\\x83q')\ntry:"))

      assert message =~ "cannot be decoded"
    end

    test "has casts that it refuses logged" do
      inp = start_interpreter!(allow: :none)
      test = self()

      log =
        capture_log(fn ->
          code = "await snex.cast('Elixir.System', 'halt', []); await snex.send(test, 'sent')"
          {:ok, nil} = Snex.pyeval(inp, code, %{"test" => test})
          assert_receive "sent", 60_000
        end)

      assert log =~ "System.halt/0 is not among the functions that Python may call"
    end

    test "says nothing about messages, which may be sent" do
      inp = start_interpreter!(allow: :none)
      {:ok, nil} = Snex.pyeval(inp, "await snex.send(test, 1)", %{"test" => self()})
      assert_received 1
    end
  end

  describe "the option atoms" do
    test ":create, the default: replies may create atoms" do
      for opts <- [[], [atoms: :create]] do
        inp = start_interpreter!(opts)
        name = "never_heard_of_#{System.unique_integer([:positive])}"
        assert {:ok, atom} = Snex.pyeval(inp, "return snex.Atom('#{name}')")
        assert Atom.to_string(atom) == name
      end
    end

    test ":existing: replies may name atoms that exist, and no others" do
      inp = start_interpreter!(atoms: :existing)
      assert Snex.pyeval(inp, "return snex.Atom('ok')") == {:ok, :ok}
      name = "never_heard_of_#{System.unique_integer([:positive])}"
      assert {:error, error} = Snex.pyeval(inp, "return [snex.Atom('#{name}')]")
      assert %Error{code: :internal_error, reason: reason} = error
      assert reason =~ "names an atom that does not exist"
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end

    # Far more than all that others may create meanwhile.
    @many 100_000
    @new_atoms "[snex.Atom(f'{prefix}_{n}') for n in range(#{@many})]"

    defp prefix, do: "never_heard_of_#{System.unique_integer([:positive])}"

    defp no_new_atoms(fun) do
      before = :erlang.system_info(:atom_count)
      result = fun.()
      assert :erlang.system_info(:atom_count) - before < 10_000
      result
    end

    @doc false
    def take(_value), do: nil

    test ":existing holds against 100,000 new atoms, in what Python returns, sends, calls with and logs" do
      inp = start_interpreter!(atoms: :existing)

      no_new_atoms(fn ->
        assert {:error, %Error{code: :internal_error, reason: reason}} =
                 Snex.pyeval(inp, "return #{@new_atoms}", %{"prefix" => prefix()}, timeout: 60_000)

        assert reason =~ "names an atom that does not exist"
        assert byte_size(reason) < 1_000
        assert Snex.pyeval(inp, "return 1") == {:ok, 1}
      end)

      for code <- [
            "await snex.send(test, #{@new_atoms})",
            "await snex.call('Elixir.Snex.Interpreter.AllowTest', 'take', [#{@new_atoms}])"
          ] do
        no_new_atoms(fn ->
          vars = %{"prefix" => prefix(), "test" => self()}

          assert {:error, %Error{code: :python_runtime_error} = error} =
                   Snex.pyeval(inp, code, vars, timeout: 60_000)

          assert error.exception.type == "ElixirError"
          assert error.reason =~ "names an atom that does not exist"
          assert Snex.pyeval(inp, "return 1") == {:ok, 1}
        end)
      end

      log =
        capture_log(fn ->
          no_new_atoms(fn ->
            # Each new key of a log event's metadata would be one.
            code = """
            import logging
            handler = snex.LoggingHandler(default_metadata={f"{prefix}_{n}": n for n in range(#{@many})})
            logger = logging.getLogger(prefix)
            logger.addHandler(handler)
            logger.warning("hello")
            """

            assert Snex.pyeval(inp, code, %{"prefix" => prefix()}, timeout: 60_000) == {:ok, nil}
            assert Snex.pyeval(inp, "return 1") == {:ok, 1}
          end)
        end)

      assert log =~ "a log event from Python is invalid"
      refute_received _
    end

    test ":existing holds against an error that Python forges, and so does :create" do
      for atoms <- [:existing, :create] do
        inp = start_interpreter!(atoms: atoms)
        name = prefix()

        code = """
        from snex._elixir import client
        from snex._wire import frame
        from snex._eval.request import current
        body = b"\\x83w" + bytes([len(name)]) + name.encode()
        client.current()._writer.write(frame.ERROR, current.get().number, [body])
        import asyncio
        await asyncio.sleep(1000)
        """

        assert {:error, %Error{code: :internal_error}} =
                 Snex.pyeval(inp, code, %{"name" => name}, timeout: 60_000)

        assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
      end
    end

    test ":existing holds for calls too, and the error is Python's" do
      inp = start_interpreter!(atoms: :existing)
      name = "NeverHeardOf#{System.unique_integer([:positive])}"
      code = "try:\n    await Elixir.#{name}.fun()\nexcept snex.ElixirError as e:\n    return str(e)"
      assert {:ok, message} = Snex.pyeval(inp, code)
      assert message =~ "names an atom that does not exist"
    end
  end
end
