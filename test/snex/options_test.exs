defmodule Snex.OptionsTest do
  use ExUnit.Case, async: true

  alias Snex.Options

  @table [
    size: [type: {:integer, 1..9999}, default: 3000, doc: "how many"],
    mode: [type: {:in, [:fast, :slow]}, default: :fast, doc: "how\nquickly"],
    title: [type: :string, default: nil, doc: "none by default"],
    modus: [alias: :mode],
    extra: [type: :any, doc: "left out"]
  ]

  test "options are checked, and have their defaults; one without a default is left out" do
    assert Options.check!([], @table) == %{size: 3_000, mode: :fast, title: nil}

    assert Options.check!([extra: nil, title: nil], @table) == %{
             size: 3_000,
             mode: :fast,
             title: nil,
             extra: nil
           }

    assert Options.check!([size: 1, size: 2, modus: :slow], @table) == %{size: 1, mode: :slow, title: nil}
  end

  test "of an option that is given twice the first counts, under whichever name" do
    assert %{mode: :slow} = Options.check!([modus: :slow, mode: :fast], @table)
    assert %{mode: :fast} = Options.check!([mode: :fast, modus: :slow], @table)
    assert_raise ArgumentError, fn -> Options.check!([size: 1, size: 10_000], @table) end
  end

  test "a wrong value is refused with its option, the value and what would be right" do
    for {options, message} <- [
          {[size: 10_000], "option :size cannot be 10000: expected an integer from 1 to 9999"},
          {[size: 2 ** 70],
           "option :size cannot be 1180591620717411303424: expected an integer from 1 to 9999"},
          {[size: nil], "option :size cannot be nil: expected an integer from 1 to 9999"},
          {[modus: :x], "option :modus cannot be :x: expected :fast or :slow"},
          {[title: ~c"x"], "option :title cannot be ~c\"x\": expected a string"},
          {[{"size", 1}], "expected a keyword list of options, got: [{\"size\", 1}]"},
          {%{}, "expected a keyword list of options, got: %{}"}
        ] do
      assert_raise ArgumentError, message, fn -> Options.check!(options, @table) end
    end

    assert_raise ArgumentError,
                 "option :size of :limits cannot be 0: expected an integer from 1 to 9999",
                 fn ->
                   Options.check!([size: 0], @table, :limits)
                 end
  end

  test "an unknown option: the nearest one is suggested if it is near, otherwise all are named" do
    for {name, message} <- [
          {:tilte, "unknown option :tilte, did you mean :title?"},
          {:colour, "unknown option :colour; known are :extra, :mode, :modus, :size, :title"}
        ] do
      assert_raise ArgumentError, message, fn -> Options.check!([{name, 1}], @table) end
    end
  end

  test "documentation and type have every option" do
    assert Options.documentation(@table) == """
             * `:size` - how many. Default: `3_000`
             * `:mode` - how
               quickly. Default: `:fast`
             * `:title` - none by default
             * `:modus` - the same as `:mode`
             * `:extra` - left out\
           """

    assert @table |> Options.spec() |> Macro.to_string() ==
             "{:size, integer()}\n| {:mode, :fast | :slow}\n| {:title, String.t()}\n| {:modus, :fast | :slow}\n| {:extra, term()}"
  end

  test "every option of the public functions is in their documentation, and has a type" do
    for {module, function, arity, type, table} <- [
          {Snex, :pyeval, 4, :pyeval_opt, Snex.CallOptions.pyeval()},
          {Snex, :make_env, 3, :make_env_opt, Snex.CallOptions.make_env()},
          {Snex.Interpreter, :start_link, 1, :option, Snex.Interpreter.Options.table()}
        ] do
      {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module)
      {_, _, _, %{"en" => doc}, _} = List.keyfind(docs, {:function, function, arity}, 0)
      {:ok, types} = Code.Typespec.fetch_types(module)
      {_, definition} = Enum.find(types, &match?({_, {^type, _, _}}, &1))
      spec = definition |> Code.Typespec.type_to_quoted() |> Macro.to_string()

      for {name, _entry} <- table do
        assert doc =~ "  * `#{inspect(name)}` - "
        assert spec =~ ~r/{#{Regex.escape(inspect(name))},|\b#{Regex.escape(to_string(name))}:/
      end
    end
  end
end
