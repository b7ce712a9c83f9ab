defmodule Snex.BindingsTest do
  use Snex.Case, async: true

  alias Snex.Bindings

  doctest Snex.Bindings.Names

  @moduletag timeout: 300_000

  @folder Path.expand("../support/python/bound", __DIR__)

  defmodule Python do
    use Snex.Interpreter,
      name: __MODULE__,
      python_preference: :system,
      python_path: Path.expand("../support/python/bound", __DIR__),
      pyproject_toml: """
      [project]
      name = "bindings"
      version = "0.0.0"
      requires-python = ">=3.10"
      """
  end

  defmodule Statistics do
    use Snex.Bindings,
      interpreter: Python,
      module: "statistics",
      only: ~w[mean median fmean quantiles NormalDist]
  end

  defmodule Shop do
    use Snex.Bindings, interpreter: Python, module: "shop", stream: ~w[count Order.names]

    @doc "A function of the user's own."
    def twice(amount), do: Snex.Error.unwrap!(price(amount, factor: 2))
  end

  alias Shop.Order

  setup do
    start_supervised!(Python)
    :ok
  end

  defp define(options, name \\ "Defined") do
    code = """
    defmodule #{inspect(__MODULE__)}.#{name}#{System.unique_integer([:positive])} do
      # The second line.
      use Snex.Bindings, #{inspect(options)} ++ [interpreter: #{inspect(Python)}]
    end
    """

    Code.compile_string(code, "defined.ex")
  end

  test "functions of Python's standard library are functions" do
    assert Statistics.mean([1, 2, 3]) == {:ok, 2}
    assert Statistics.mean!([1, 2, 3]) == 2
    assert Statistics.fmean([1, 2, 3], weights: [1, 1, 2]) == {:ok, 2.25}
    assert {:error, %Error{exception: %{type: "StatisticsError"}}} = Statistics.mean([])
    assert_raise Error, ~r/at least one data point/, fn -> Statistics.mean!([]) end
    refute function_exported?(Statistics, :mode, 1)
  end

  test "classes are modules, and what they make are objects" do
    assert {:ok, %Snex.Object{type: "statistics.NormalDist"} = dist} =
             Statistics.NormalDist.new(mu: 1, sigma: 2)

    assert Statistics.NormalDist.cdf(dist, 1) == {:ok, 0.5}
    assert Statistics.NormalDist.mean!(dist) == 1.0
    assert {:ok, %Snex.Object{}} = Statistics.NormalDist.from_samples([1, 2, 3])
  end

  test "arguments are what has no default, and options are the rest" do
    assert Shop.price(10) == {:ok, 10.0}
    assert Shop.price!(10, factor: 2, mode: :gross) == 20 * 1.19
    assert Shop.required!(1, unit: "kg") == "1 kg"
    refute function_exported?(Shop, :required, 1)

    assert Shop.described!("tea", colour: "green", hot: true) == %{
             "name" => "tea",
             "colour" => "green",
             "hot" => true
           }

    assert Shop.later(3) == {:ok, 3}
    assert Shop.currency!() == "EUR"
    assert Shop.limits!() == {1, 100}
    assert Shop.twice(2) == 4.0
  end

  test "parameters that Python takes only by position are given by name all the same" do
    assert Shop.shifted!(1) == 2
    assert Shop.shifted!(1, by: 5) == 6
    assert Shop.shifted!(1, by: 5, sign: -1) == -4

    assert_raise ArgumentError, ~r/option :sign can't be given without option :by/, fn ->
      Shop.shifted(1, sign: -1)
    end

    assert Shop.total!(1, []) == 1
    assert Shop.total!(1, [], third: 3, scale: 2) == 8
    assert Shop.total!(1, [4, 5], second: 2, third: 3) == 15

    assert_raise ArgumentError, ~r/further arguments can't be given without option :second/, fn ->
      Shop.total(1, [4])
    end

    assert_raise ArgumentError, ~r/expected a list of arguments/, fn -> Shop.total(1, 4) end
  end

  test "the options of each overload are options, and required only where all of them require one" do
    [{bound, _} | _] = define(module: "overloaded")
    assert bound.measured!(1) == [1, %{}]
    assert bound.measured!("one", unit: "kg") == ["one", %{"unit" => "kg"}]
    assert bound.measured!(1.5, digits: 2) == [1.5, %{"digits" => 2}]

    assert_raise ArgumentError, ~r/unknown option :unti, did you mean :unit\?/, fn ->
      bound.measured(1, unti: 1)
    end
  end

  test "where an overload has one argument more, its last argument may be the options of the other" do
    [{bound, _} | _] = define(module: "overloaded")
    assert bound.span!(5) == [[5], %{}]
    assert bound.span!(5, unit: "m") == [[5], %{"unit" => "m"}]
    assert bound.span!(1, 5) == [[1, 5], %{}]
    assert bound.span!(1, 5, step: 2, closed: true) == [[1, 5], %{"step" => 2, "closed" => true}]
    # Those of a call are among them.
    assert bound.span!(5, timeout: 60_000, kwargs: %{"x" => 1}) == [[5], %{"x" => 1}]
    assert {:error, %Error{code: :response_timeout}} = bound.span(5, timeout: 0)

    assert_raise ArgumentError, ~r/unknown option :uint, did you mean :unit\?/, fn ->
      bound.span(5, uint: "m")
    end

    # Other lists are values, and so is a keyword list that has options behind it.
    assert bound.span!(5, []) == [[5, []], %{}]
    assert bound.span!(5, [{"unit", 1}]) == [[5, [{"unit", 1}]], %{}]
    assert bound.span!(5, [unit: 1], step: 1) == [[5, [unit: 1]], %{"step" => 1}]
    assert bound.span!(5, [unit: 1], snex: []) == [[5, [unit: 1]], %{}]
    assert bound.joined!(["a"], unit: "m") == [[["a"]], %{"unit" => "m"}]
    assert bound.joined!("a", ["b", "c"]) == [["a", "b", "c"], %{}]
    assert bound.joined!("a", ["b"], timeout: 60_000) == [["a", "b"], %{}]
  end

  test "a class in a class is a module in a module" do
    order = Order.parse!("ada: tea, milk")
    assert Order.__classes__() == [Order.Receipt]
    assert %Snex.Object{} = receipt = Order.receipt!(order)
    assert Order.Receipt.text!(receipt) == "ada: tea, milk"
    assert {:ok, made} = Order.Receipt.new(order)
    assert Order.Receipt.text!(made) == "ada: tea, milk"
  end

  test "an option is the function's own parameter first, and then one of Snex's" do
    assert Shop.price!(10, timeout: 1) == 11.0
    assert {:ok, %Snex.Object{}} = Shop.price(10, returns: :object)
    assert Shop.price!(10, timeout: 1, snex: [timeout: 60_000, returns: :value]) == 11.0
    assert Shop.described!("a", kwargs: %{"timeout" => 3}) == %{"name" => "a", "timeout" => 3}

    assert_raise ArgumentError, "unknown option :fctor, did you mean :factor?", fn ->
      Shop.price(10, fctor: 2)
    end

    assert_raise ArgumentError, ~r/expected a keyword list of options, got: 5/, fn -> Shop.price(10, 5) end
  end

  test "each function takes the server to call" do
    other = start_interpreter!(python_path: @folder, init_script: "import shop; shop.CURRENCY = 'NOK'")
    assert Shop.currency!() == "EUR"
    assert Shop.currency!(server: other) == "NOK"
    assert Order.currencies!(server: other) == ["NOK"]
    order = Order.new!("ada", server: other)
    assert order.interpreter == other
    assert Order.size!(order, server: other) == 0

    [{bound, _} | _] = define(module: "shop", server: {:nobody, node()}, only: ["price"])
    assert {:error, %Error{code: :call_failed}} = bound.price(1)
    assert {:ok, 1.0} = bound.price(1, server: other)
  end

  test "results whose class has bindings stay in Python" do
    assert {:ok, %Snex.Object{} = order} = Order.parse("ada: tea, milk")
    assert order |> Order.add!("sugar", count: 2) |> Order.size!() == 3
    assert {:error, %Error{reason: "at least one"}} = Order.add(order, "salt", count: 0)
    assert Order.size!(Order.new_!(order)) == 0
    assert Order.rate!() == 0.19

    # Also of a class that has a form in Elixir.
    assert %Snex.Object{} = item = Shop.item!("tea")
    assert %Snex.Object{} = item = Shop.Item.twice!(item)
    assert {Shop.Item.name!(item), Shop.Item.amount!(item)} == {"tea", 2}
    assert Shop.item!("tea", returns: :value) == %{"name" => "tea", "amount" => 1}
    assert_raise ArgumentError, ~r/expected a Snex.Object with `size`/, fn -> Order.size("ada") end
  end

  test "functions return streams where they are asked to" do
    assert Shop.count(1_000_000) |> Enum.take(3) == [0, 1, 2]
    assert Order.parse!("ada: tea, milk") |> Order.names() |> Enum.to_list() == ["tea", "milk"]
    refute function_exported?(Shop, :count!, 1)
  end

  test "names that Elixir does not allow are changed" do
    assert Shop.end_(1, 2, 3) == {:ok, [1, 2, 3]}
    assert Shop.http_ok!() == 200
  end

  test "words of Elixir, hundreds of functions, and documentation with anything in it can be bound" do
    {modules, diagnostics} = Code.with_diagnostics(fn -> define(module: "hostile") end)
    assert diagnostics == []
    assert [{bound, _}] = modules
    # `Hostile` is left out: it can't be looked at.
    assert bound.__classes__() == []
    names = for info <- bound.__functions__(), do: info.name
    assert length(names) > 340
    assert [] = ~w[after_ case_ end_ quote_ unquote_ max length module_info_ nil_ f299]a -- names
    # It prints when it is imported.
    assert bound.end_!(output: :discard) == 6
    assert bound.end_!(value: 2, end: 3, fn: 4) == 9
    assert bound.max!(value: 2) == 7

    # All of it is in the source as it was.
    options = Snex.Bindings.Options.check!(module: "hostile", interpreter: Python, only: ["max", "huge"])
    {:ok, [{_module, body}], _files} = Snex.Bindings.Definition.bodies(bound, options)
    {:__block__, _, lines} = Code.string_to_quoted!(body)
    docs = for {:@, _, [{:doc, _, [doc]}]} when is_binary(doc) <- lines, do: doc
    assert Enum.any?(docs, &(&1 =~ ~S|max: """three""" #{not} \\|))
    assert Enum.any?(docs, &(byte_size(&1) in 200_000..400_000 and &1 =~ "(The rest is left out.)"))
  end

  test "two names that become one are an error that names both" do
    assert_raise CompileError,
                 ~r/defined.ex:3: the functions of collides.Mean and collides.mean would both be .*mean\/1/,
                 fn ->
                   define(module: "collides")
                 end

    assert [{_, _}] = define(module: "collides", except: ["Mean"])
  end

  test "a function whose parameters nobody knows takes args and kwargs" do
    [{bound, _} | _] = define(module: "shop", only: ["opaque"])
    assert bound.opaque([3, 5, 4]) == {:ok, [3, 5, 4]}
    assert bound.opaque!([], [b: 1], timeout: 60_000) == %{"b" => 1}
  end

  test "what Python says of an import that fails is the error, where the module is used" do
    error = assert_raise CompileError, fn -> define(module: "breaks") end
    message = Exception.message(error)
    assert message =~ "defined.ex:3: Python can't import breaks:"
    assert message =~ ~r/breaks.py", line 2, in <module>/
    assert message =~ "ZeroDivisionError: division by zero"

    assert_raise CompileError, ~r/No module named 'nowhere'/, fn -> define(module: "nowhere") end

    assert_raise CompileError, ~r/Python ended with status 3 while.*last words/s, fn ->
      define(module: "exits")
    end
  end

  test "wrong options are errors where the module is used" do
    assert_raise CompileError,
                 ~r/defined.ex:3: use Snex.Bindings: unknown option :modul, did you mean :module\?/,
                 fn ->
                   define(modul: "shop")
                 end

    assert_raise CompileError, ~r/option :module is missing/, fn -> define([]) end

    assert_raise CompileError, ~r/has no "prize", did you mean "price"\?/, fn ->
      define(module: "shop", only: ["prize"])
    end

    assert_raise CompileError, ~r/option :stream: there is no function "cuont" in shop/, fn ->
      define(module: "shop", stream: ["cuont"])
    end

    assert_raise CompileError, ~r/there is no module No.Such/, fn ->
      define(module: "shop", interpreter: No.Such)
    end

    assert_raise CompileError, ~r/Enum does not `use Snex.Interpreter`/, fn ->
      define(module: "shop", interpreter: Enum)
    end
  end

  test "a module tells its functions, its classes, and what has a text in it" do
    assert %{arities: [1, 2], kind: :function, python: "statistics.mean", summary: summary} =
             Enum.find(Statistics.__functions__(), &(&1.name == :mean))

    assert summary =~ "arithmetic mean"
    assert Statistics.__classes__() == [Statistics.NormalDist]
    assert Statistics.NormalDist.__classes__() == []
    found = for {module, info} <- Statistics.search("QUANT"), do: {module, info.name}
    assert found == [{Statistics, :quantiles}, {Statistics.NormalDist, :quantiles}]
    assert Bindings.search(Statistics, "no such thing") == []
  end
end
