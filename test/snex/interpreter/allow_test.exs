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

      assert log =~ "what Python logs cannot be understood"
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
