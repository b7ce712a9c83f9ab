defmodule Snex.Bindings.LibrariesTest do
  # Bindings of real packages, as a source file and by `use`. Not async: it sets options of the compiler.
  use Snex.Case

  alias Snex.Bindings.Definition
  alias Snex.Bindings.File, as: Generated
  alias Snex.Bindings.Options

  @moduletag :slow
  @moduletag timeout: 900_000

  defmodule Python do
    use Snex.Interpreter,
      name: __MODULE__,
      python_preference: :system,
      # A package of one's own.
      python_path: Path.expand("../../support/python/bound", __DIR__),
      pyproject_toml: """
      [project]
      name = "libraries"
      version = "0.0.0"
      requires-python = ">=3.10"
      dependencies = ["numpy>=2", "pandas>=2.2"]
      """
  end

  setup_all do
    # ExUnit compiles without what is asked for here.
    for {name, value} <- [docs: true, debug_info: true] do
      before = Code.get_compiler_option(name)
      Code.put_compiler_option(name, value)
      on_exit(fn -> Code.put_compiler_option(name, before) end)
    end

    folder = Path.join(System.tmp_dir!(), "snex-libraries-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    start_supervised!(Python)

    modules =
      for python <- ~w[statistics json pathlib numpy pandas shop],
          do: {String.to_atom(python), bind!(python, folder)}

    {:ok, [folder: folder] ++ modules}
  end

  # Compiles a module's source file, without a single warning, into a folder.
  defp bind!(python, folder) do
    module = Module.concat(__MODULE__, Macro.camelize(python))
    options = Options.check!(module: python, interpreter: Python)
    {:ok, bodies, _files} = Definition.bodies(module, options)
    text = Generated.text(bodies, Definition.given(options))
    {modules, diagnostics} = Code.with_diagnostics(fn -> Code.compile_string(text, "#{python}.ex") end)
    assert diagnostics == []
    for {name, beam} <- modules, do: File.write!(Path.join(folder, "#{name}.beam"), beam)
    module
  end

  defp docs(folder, module, name) do
    {:docs_v1, _, :elixir, "text/markdown", _, _, docs} = Code.fetch_docs(Path.join(folder, "#{module}.beam"))

    Enum.find_value(docs, fn {{kind, found, _arity}, _, _, doc, _} ->
      if {kind, found} == {:function, name}, do: doc["en"]
    end)
  end

  defp specs(folder, module) do
    {:ok, specs} = folder |> Path.join("#{module}.beam") |> File.read!() |> Code.Typespec.fetch_specs()

    Map.new(specs, fn {{name, arity}, [spec]} ->
      {{name, arity}, name |> Code.Typespec.spec_to_quoted(spec) |> Macro.to_string()}
    end)
  end

  test "the standard library: statistics, json, pathlib", context do
    %{folder: folder, statistics: statistics, json: json, pathlib: pathlib} = context
    assert statistics.mean!([1, 2, 3]) == 2
    assert docs(folder, statistics, :mean) =~ "Return the sample arithmetic mean of data."
    assert docs(folder, statistics, :mean) =~ "```python\nmean([1, 2, 3, 4, 4])\n```\n\n```text\n2.8\n```"
    refute docs(folder, statistics, :mean) =~ ">>>"
    # The types are those of typeshed.
    assert specs(folder, statistics)[{:quantiles, 2}] =~ ":inclusive | :exclusive"
    dist = Module.concat(statistics, NormalDist)
    assert specs(folder, dist)[{:cdf, 3}] =~ "Snex.Bindings.result(Snex.Bindings.real())"

    assert json.dumps!(%{"a" => [1, nil]}, sort_keys: true, indent: 0) == "{\n\"a\": [\n1,\nnull\n]\n}"
    assert json.loads!("[1, 2.5]") == [1, 2.5]
    assert {:error, %Error{exception: %{type: "JSONDecodeError"}}} = json.loads("[")

    path = Module.concat(pathlib, Path)
    file = folder |> List.wrap() |> path.new!() |> path.joinpath!(["a", "b.txt"])
    assert %Snex.Object{} = file
    assert path.name!(file) == "b.txt"
    assert file |> path.parent!() |> path.name!() == "a"
    assert path.exists!(file) == false
    assert specs(folder, path)[{:exists, 2}] =~ "boolean()"
    assert specs(folder, path)[{:parent, 2}] =~ "Snex.Object.t()"
  end

  test "numpy's top level", %{folder: folder, numpy: numpy} do
    array = numpy.array!([[1, 2], [3, 4]], returns: :object, timeout: 60_000)
    assert numpy.sum!(array) == 10
    assert numpy.sum!(array, axis: 0, returns: :object) |> Snex.Object.call!("tolist", []) == [4, 6]
    # In C, without a signature: the first line of its documentation has it.
    assert numpy.add!(1, 2) == 3
    assert Float.round(numpy.pi!(), 3) == 3.142
    assert Module.concat(numpy, Ndarray).shape!(array) == {2, 2}
    assert docs(folder, numpy, :clip) =~ "* `a_min, a_max` - `array_like or None`: Minimum and maximum value."
    assert length(numpy.__functions__()) > 300
    assert [_ | _] = numpy.search("cumulative sum")
  end

  test "pandas' top level and its DataFrame", %{folder: folder, pandas: pandas} do
    assert pandas.isna!([1, nil], returns: :object, timeout: 60_000) |> Snex.Object.call!("tolist", []) == [
             false,
             true
           ]

    assert length(pandas.__functions__()) > 60
    frame = Module.concat(pandas, DataFrame)
    one = frame.new!(data: %{"a" => [1, 2], "b" => [3, 4]})
    assert %Snex.Object{type: type} = one
    assert type =~ "DataFrame"
    assert frame.shape!(one) == {2, 2}
    both = pandas.concat!([one, one], ignore_index: true, returns: :object)
    assert frame.shape!(both) == {4, 2}
    # Its own class, by its annotation: it stays in Python.
    assert %Snex.Object{} = first = frame.head!(both, n: 1)
    assert frame.to_dict!(first, orient: "records") == [%{"a" => 1, "b" => 3}]
    assert specs(folder, frame)[{:head, 2}] =~ "result(Snex.Object.t())"
  end

  test "a package of one's own", %{folder: folder, shop: shop} do
    assert shop.price!(10, factor: 2, mode: :gross) == 20 * 1.19
    order = Module.concat(shop, Order)

    assert order.parse!("ada: tea, milk") |> order.receipt!() |> Module.concat(order, Receipt).text!() ==
             "ada: tea, milk"

    assert docs(folder, order, :add) =~ "## Returns"
  end

  @plt "../../../_build/plt/*.plt" |> Path.expand(__DIR__) |> Path.wildcard() |> List.first()

  if @plt == nil or System.find_executable("dialyzer") == nil do
    @tag skip: "needs Dialyzer and its table in _build/plt, which `bin/test dialyzer` makes"
  end

  test "Dialyzer finds nothing to say", %{folder: folder} do
    ebin = Application.app_dir(:snex, "ebin")

    beams =
      for name <- ~w[Bindings Bindings.Call Object Error Invoke],
          do: Path.join(ebin, "Elixir.Snex.#{name}.beam")

    assert System.cmd("dialyzer", ["--quiet", "-Wno_unknown", "--plt", @plt, "-r", folder | beams],
             env: [{"ERL_LIBS", :elixir |> :code.lib_dir() |> Path.dirname()}],
             stderr_to_stdout: true
           ) == {"", 0}
  end

  @tag :tmp_dir
  test "the source file and `use` have the same functions, and the same documentation", %{tmp_dir: folder} do
    options = [module: "statistics", interpreter: Python]
    used = Module.concat(__MODULE__, Used)
    code = "defmodule #{inspect(used)} do use Snex.Bindings, #{inspect(options)} end"
    by_use = Code.compile_string(code)
    checked = Options.check!(options)
    {:ok, bodies, _} = Definition.bodies(used, checked)
    text = Generated.text(bodies, Definition.given(checked))
    [project] = Python.__info__(:attributes)[:snex_project]
    File.rm!(Path.join([project.root, "bindings", inspect(used)]))
    {:ok, again, _} = Definition.bodies(used, checked)
    assert Generated.text(again, Definition.given(checked)) == text

    for {module, _} <- by_use, do: :code.delete(module) && :code.purge(module)
    by_file = Code.compile_string(text)

    contents = fn modules, name ->
      path = Path.join(folder, name)
      File.mkdir_p!(path)

      for {module, beam} <- Enum.sort(modules) do
        file = Path.join(path, "#{module}.beam")
        File.write!(file, beam)
        {:docs_v1, _, _, _, doc, _, docs} = Code.fetch_docs(file)

        docs =
          for {key, _, signature, doc, meta} <- docs,
              do: {key, signature, doc, Map.delete(meta, :source_annos)}

        {module, doc, docs, specs(path, module)}
      end
    end

    assert contents.(by_use, "use") == contents.(by_file, "file")
  end
end
