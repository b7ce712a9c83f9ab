defmodule Snex.FramesTest do
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Arrow
  alias Snex.Object

  @moduletag :slow
  @moduletag timeout: 300_000

  @init """
  import datetime, decimal, zoneinfo
  import pandas as pd, polars as pl, pyarrow as pa

  Z = zoneinfo.ZoneInfo("Europe/Berlin")
  COLUMNS = {
      "at": [datetime.datetime(2026, 7, 1, 12, tzinfo=Z), None],
      "big": [2**62 + 1, None],
      "flag": [True, None],
      "text": ["żółw", None],
      "price": [decimal.Decimal("1.50"), None],
      "list": [[1, 2], None],
      "map": [{"a": 1, "b": "y"}, None],
      "day": [datetime.date(2026, 1, 2), None],
      "time": [datetime.time(1, 2, 3), None],
      "long": [datetime.timedelta(seconds=1.5), None],
      "kind": ["u", None],
  }

  def in_pyarrow():
      table = pa.table(COLUMNS)
      return table.set_column(10, "kind", table["kind"].dictionary_encode())

  def in_polars():
      return pl.from_arrow(in_pyarrow())

  def in_pandas():
      frame = pd.DataFrame({name: pd.Series(values) for name, values in COLUMNS.items()})
      return frame.astype({"big": object}).assign(
          big=pd.array(COLUMNS["big"], "Int64"), flag=pd.array(COLUMNS["flag"], "boolean"),
          kind=pd.Categorical(COLUMNS["kind"]))

  def rows(frame):
      if isinstance(frame, pd.DataFrame):
          frame = pa.Table.from_pandas(frame, preserve_index=False)
      return frame.to_pylist() if isinstance(frame, pa.Table) else frame.to_dicts()

  def same(frame):
      expected = [dict(zip(COLUMNS, row)) for row in zip(*COLUMNS.values())]
      return rows(frame) == expected or repr(rows(frame))

  class Foreign:
      def __init__(self, inner):
          self.inner = inner

      def __arrow_c_stream__(self, requested_schema=None):
          return self.inner.__arrow_c_stream__(requested_schema)
  """

  # Environments of Python are made once for all tests, and kept: they have thousands of files.
  setup do: exchange_cache(Path.expand("../../tmp/frames", __DIR__))

  defp start!(dependencies, options) do
    toml = """
    [project]
    name = "frames"
    version = "0.1.0"
    requires-python = ">=3.10"
    dependencies = #{inspect(dependencies)}
    """

    {pid, _output} =
      with_io(fn ->
        start_interpreter!([pyproject_toml: toml, python_preference: :system] ++ options)
      end)

    pid
  end

  defp with_all!(environment \\ %{}) do
    py =
      start!(["pandas", "polars", "pyarrow"],
        init_script: @init,
        init_script_timeout: 240_000,
        environment: environment
      )

    {:ok, env} = Snex.make_env(py)
    env
  end

  defp as(nil), do: []
  defp as(library), do: [dataframe_as: library]

  for encoder <- ["native", "pure"] do
    describe "with the #{encoder} encoder," do
      setup do
        %{env: with_all!(if(unquote(encoder) == "pure", do: %{"SNEX_ENCODER" => "pure"}, else: %{}))}
      end

      test "frames of each library come as streams, and become frames of each", %{env: env} do
        for from <- ["in_pandas()", "in_polars()", "in_pyarrow()", "in_pyarrow().to_batches()[0]"] do
          assert {:ok, %{"nested" => [%Arrow{kind: :frame} = frame]}} =
                   Snex.pyeval(env, "return {'nested': [#{from}]}")

          assert Arrow.columns(frame) ==
                   {:ok, ~w[at big flag text price list map day time long kind]}

          for to <- [:pandas, :polars, :pyarrow] do
            code = "return type(xs[0]['x']).__module__.partition('.')[0], same(xs[0]['x'])"

            assert {from, to, Snex.pyeval(env, code, %{"xs" => [%{x: frame}]}, encoding_opts: as(to))} ==
                     {from, to, {:ok, {"#{to}", true}}}
          end
        end
      end

      test "so do series", %{env: env} do
        for {code, name} <- [
              {"pd.Series([1, None], dtype='Int64', name='s')", "s"},
              {"pd.Series([1, None], dtype='Int64')", nil},
              {"pd.Series([1, None], dtype='Int64', index=['p', 'q'], name='s')", "s"},
              {"pl.Series('s', [1, None])", "s"},
              {"pa.array([1, None])", nil},
              {"pa.chunked_array([[1], [None]])", nil}
            ] do
          assert {:ok, {%Arrow{kind: :series} = series}} = Snex.pyeval(env, "return (#{code},)")

          for {to, expected} <- [
                pandas: {"Series", [1, nil], name},
                polars: {"Series", [1, nil], name || ""},
                pyarrow: {"ChunkedArray", [1, nil], nil}
              ] do
            code =
              "return type(x).__name__, x.tolist() if isinstance(x, pd.Series) else x.to_pylist() if " <>
                "isinstance(x, pa.ChunkedArray) else x.to_list(), getattr(x, 'name', None)"

            assert Snex.pyeval(env, code, %{"x" => series}, encoding_opts: as(to)) == {:ok, expected}
          end
        end
      end

      test "any object with an Arrow stream is a frame, or a series", %{env: env} do
        for inner <- ["in_pyarrow()", "in_polars()"] do
          assert {:ok, [%Arrow{kind: :frame} = frame]} = Snex.pyeval(env, "return [Foreign(#{inner})]")
          assert Snex.pyeval(env, "return same(x)", %{"x" => frame}) == {:ok, true}
        end

        assert {:ok, %Arrow{kind: :series} = series} =
                 Snex.pyeval(env, "return Foreign(pl.Series('s', [1]))")

        assert Snex.pyeval(env, "return list(x)", %{"x" => series}) == {:ok, [1]}
        # What can be read once.
        assert {:ok, %Arrow{kind: :frame} = frame} = Snex.pyeval(env, "return in_pyarrow().to_reader()")
        assert Snex.pyeval(env, "return same(x)", %{"x" => frame}) == {:ok, true}
      end

      test "pandas' index comes back, and is a column for everyone else", %{env: env} do
        for {index, columns} <- [
              {"None", ["a"]},
              {"pd.Index(['p', 'q'], name='key')", ["a", "key"]},
              {"pd.Index([7, 9])", ["a", "__index_level_0__"]},
              {"pd.MultiIndex.from_tuples([('p', 1), ('q', 2)], names=['x', 'y'])", ["a", "x", "y"]}
            ] do
          Snex.pyeval!(env, "frame = pd.DataFrame({'a': [1, 2]}, index=#{index})")
          frame = Snex.pyeval!(env, "return frame")
          assert Arrow.columns(frame) == {:ok, columns}
          assert Snex.pyeval(env, "return frame.equals(x)", %{"x" => frame}) == {:ok, true}

          code = "return bool(frame.a[1:].equals(x))"
          series = Snex.pyeval!(env, "return frame.a[1:]")
          assert Snex.pyeval(env, code, %{"x" => series}) == {:ok, true}
        end
      end

      test "empty frames stay what they are", %{env: env} do
        for {code, columns} <- [
              {"pd.DataFrame()", []},
              {"pd.DataFrame({'a': pd.Series([], dtype='float64')})", ["a"]},
              {"pl.DataFrame()", []},
              {"pl.DataFrame({'a': []}, schema={'a': pl.Date})", ["a"]},
              {"pa.table({})", []},
              {"pa.schema([('a', pa.int8())]).empty_table()", ["a"]}
            ],
            to <- [:pandas, :polars, :pyarrow] do
          frame = Snex.pyeval!(env, "return #{code}")
          assert Arrow.columns(frame) == {:ok, columns}

          assert Snex.pyeval(
                   env,
                   "return len(x), list(getattr(x, 'column_names', x.columns))",
                   %{"x" => frame},
                   encoding_opts: as(to)
                 ) == {:ok, {0, columns}}
        end
      end

      test "what Arrow refuses is an error with its place and a remedy, or stays in Python", %{env: env} do
        for {code, why} <- [
              {"pd.DataFrame({'a': [object()]})",
               "Conversion failed for column a with type object; .*; convert that column"},
              {"pd.DataFrame({'a': [2**70]})", "too large.*; convert that column"},
              {"pd.DataFrame([[1, 2]], columns=['a', 'a'])", "two columns are called 'a'; rename"},
              {"pd.DataFrame({1: [1], '1': [2]})", "two columns are called '1'; rename"},
              {"pa.table([[1], [2]], names=['a', 'a'])", "two columns are called 'a'; rename"},
              {"pl.DataFrame({'a': [object()]}, schema={'a': pl.Object})",
               "'a' contains Python objects; convert"},
              {"pl.DataFrame({'a': [1]}).lazy()", "has not been computed; use .collect"}
            ] do
          value = "{'rows': [1, {'frame': #{code}}]}"

          assert {:error, %Error{code: :python_runtime_error, reason: reason}} =
                   Snex.pyeval(env, "return #{value}")

          assert reason =~ "['rows'][1]['frame']: Cannot serialize object of <class '"
          assert reason =~ Regex.compile!(why, "s")

          assert {:ok, %{"rows" => [1, %{"frame" => %Object{}}]}} =
                   Snex.pyeval(env, "return #{value}", returns: :auto)
        end
      end

      test "encoders of the user's come first", %{env: env} do
        Snex.pyeval!(env, "snex.register_encoder(pd.Series, lambda series: series.tolist())")
        Snex.pyeval!(env, "snex.register_encoder(pl.DataFrame, lambda frame: frame.to_pandas())")

        assert {:ok, [[1], %Arrow{}]} =
                 Snex.pyeval(env, "return [pd.Series([1]), pl.DataFrame({'a': [1]})]")
      end
    end
  end

  test "a frame is a value everywhere" do
    env = with_all!()
    frame = Snex.pyeval!(env, "return pd.DataFrame({'a': range(20_000)})")
    assert byte_size(frame.data) > 64 * 1024

    assert Snex.call!(env, "len", [frame]) == 20_000
    assert %Arrow{} = Snex.call!(env, "pd.DataFrame", [%{"a" => [1]}])
    assert %Object{} = Snex.call!(env, "pd.DataFrame", [%{"a" => [1]}], returns: :object)
    assert {:ok, other} = Snex.make_env(env.interpreter, %{"x" => [frame]})
    assert Snex.pyeval(other, "return int(x[0]['a'].sum())") == {:ok, 199_990_000}

    Snex.pyeval!(env, "await snex.send(to, pd.Series([1]))", %{"to" => self()})
    assert_receive %Arrow{kind: :series}

    double = fn %Arrow{} = frame -> [frame, frame] end
    code = "return [len(each) for each in await double(x)]"
    assert Snex.pyeval(env, code, %{"x" => frame, "double" => double}) == {:ok, [20_000, 20_000]}

    code = "for count in range(3):\n  yield pd.DataFrame({'a': range(count)})"
    assert [%Arrow{}, %Arrow{}, %Arrow{}] = Enum.to_list(Snex.stream(env, code))

    stream = Serde.stream([frame, frame], encoding_opts: [dataframe_as: :polars])
    code = "return [type(each).__module__.partition('.')[0] for each in x]"
    assert Snex.pyeval(env, code, %{"x" => stream}) == {:ok, ["polars", "polars"]}

    code =
      "return type(await Elixir.Function.identity(x, result_encoding_opts={'dataframe_as': 'polars'})).__module__"

    assert {:ok, "polars" <> _} = Snex.pyeval(env, code, %{"x" => frame})
  end

  # Explorer's modules in the shape of its own, with a stream in the place of its frame: the library itself is in test/integration.
  @explorer """
  defmodule Explorer.DataFrame do
    defstruct [:data, :groups, :names, :dtypes]

    def load_ipc_stream!(stream) do
      {:ok, names} = Snex.Arrow.columns(Snex.Arrow.new(stream))
      if "refused" in names, do: raise("load_ipc_stream failed"), else: make(stream, names)
    end

    def new([{name, %{data: {:series, %{data: stream}}}}]), do: make(stream, [name])
    def pull(frame, 0), do: %Explorer.Series{data: {:series, frame}, name: hd(frame.names)}
    def collect(%{data: {:lazy, frame}}), do: frame
    def collect(frame), do: frame
    def dump_ipc_stream!(%{data: stream}) when is_binary(stream), do: stream
    defp make(stream, names), do: %__MODULE__{data: stream, names: names, groups: [], dtypes: %{}}
  end
  """

  defp with_explorer! do
    Code.compile_string("defmodule Explorer.Series, do: defstruct([:data, :dtype, :name])")
    Code.compile_string(@explorer)

    on_exit(fn ->
      for module <- [Explorer.DataFrame, Explorer.Series] do
        :code.purge(module)
        :code.delete(module)
        :code.purge(module)
      end
    end)
  end

  for encoder <- ["native", "pure"] do
    test "with Explorer, frames are its own in both directions: the #{encoder} encoder" do
      with_explorer!()
      env = with_all!(if(unquote(encoder) == "pure", do: %{"SNEX_ENCODER" => "pure"}, else: %{}))

      for size <- [3, 100_000] do
        code = "return [0, {'frame': (pl.DataFrame({'a': range(#{size})}), pl.Series('s', range(#{size})))}]"

        assert {:ok, [0, %{"frame" => {frame, series}}]} = Snex.pyeval(env, code)
        assert %{__struct__: Explorer.DataFrame, names: ["a"]} = frame
        assert %{__struct__: Explorer.Series, name: "s"} = series

        for frame <- [frame, %{frame | data: {:lazy, frame}}],
            value = %{"nested" => [frame, {frame, series}]} do
          code =
            "return [type(x['nested'][0]).__name__, int(x['nested'][1][0]['a'].sum()), len(x['nested'][1][1])]"

          opts = [encoding_opts: [dataframe_as: :polars]]

          assert Snex.pyeval(env, code, %{"x" => value}, opts) ==
                   {:ok, ["DataFrame", div(size * (size - 1), 2), size]}
        end
      end

      # In every frame of the wire, beside handles.
      assert {:ok, [%Object{} = object, %{__struct__: Explorer.DataFrame}, %Object{type: "set"}]} =
               Snex.pyeval(env, "return [...,  pd.DataFrame({'a': [1]}), snex.keep({1})]", returns: :auto)

      assert Snex.pyeval(env, "return x is ...", %{"x" => object}) == {:ok, true}
      Snex.pyeval!(env, "await snex.send(to, [pd.Series([1], name='x')])", %{"to" => self()})
      assert_receive [%{__struct__: Explorer.Series, name: "x"}]
    end
  end

  test "a frame that Explorer cannot read is an error of its call, or of its stream behind the items before" do
    with_explorer!()
    env = with_all!()
    frame = "pl.DataFrame({'refused': [1]})"

    assert {:error, %Error{code: :call_failed, reason: %RuntimeError{}}} =
             Snex.pyeval(env, "return [#{frame}]")

    assert {:ok, 1} = Snex.pyeval(env, "return 1")

    stream = Snex.stream(env, "yield from [1, pl.DataFrame({'a': [1]}), #{frame}, 2]")
    test = self()
    assert_raise Error, fn -> Enum.each(stream, &send(test, {:item, &1})) end
    assert_received {:item, 1}
    assert_received {:item, %{__struct__: Explorer.DataFrame}}
    refute_received {:item, _more}
  end

  test "integers and booleans with nulls keep their values in pandas" do
    env = with_all!()

    columns =
      "{'a': pa.array([2**64 - 1, None], pa.uint64()), 'b': pa.array([1, 2], pa.uint64()), 'c': [True, None]}"

    frame = Snex.pyeval!(env, "return pa.table(#{columns})")

    assert Snex.pyeval(env, "return [str(x) for x in frame.dtypes], frame.to_dict('list')", %{
             "frame" => frame
           }) ==
             {:ok,
              {["UInt64", "uint64", "boolean"],
               %{"a" => [2 ** 64 - 1, nil], "b" => [1, 2], "c" => [true, nil]}}}
  end

  test "what is no stream is an error of the call, with its place" do
    env = with_all!()

    for as <- [:pandas, :polars, :pyarrow],
        data <- ["", "garbage", String.duplicate("garbage", 20_000)] do
      assert {:error, %Error{reason: reason}} =
               Snex.pyeval(env, "return 1", %{"x" => [0, %{"k" => Arrow.new(data)}]}, encoding_opts: as(as))

      assert reason =~ "the variable x[1]['k']: #{as} cannot read it as an Arrow stream"
    end

    assert Snex.pyeval(env, "return 1") == {:ok, 1}
  end

  test "of the libraries that are installed the first one is used" do
    frame = Snex.pyeval!(with_all!(), "return pd.DataFrame({'a': [1]})")
    code = "return type(x).__module__.partition('.')[0]"

    for {dependencies, library} <- [
          {["polars"], "polars"},
          {["pyarrow"], "pyarrow"},
          {["pandas", "polars"], "polars"}
        ] do
      py = start!(dependencies, [])

      assert {dependencies, Snex.pyeval(py, code, %{"x" => frame}, timeout: 60_000)} ==
               {dependencies, {:ok, library}}
    end

    py = start!(["pandas"], [])
    assert {:error, %Error{reason: reason}} = Snex.pyeval(py, "return 1", %{"x" => [frame]}, timeout: 60_000)

    assert reason =~
             "the variable x[0]: for a data frame, Python needs pandas and pyarrow, polars, or pyarrow; add"

    assert {:error, %Error{reason: reason}} =
             Snex.pyeval(py, "return 1", %{"x" => [frame]}, encoding_opts: [dataframe_as: :polars])

    assert reason =~ "the variable x[0]: for a data frame of polars, Python needs polars; add that"
    code = "import pandas; return [pandas.DataFrame({'a': [1]})]"
    assert {:error, %Error{reason: reason}} = Snex.pyeval(py, code, timeout: 60_000)
    assert reason =~ "[0]: Cannot serialize object of <class 'pandas"
    assert reason =~ "a pandas frame needs pyarrow, which is not installed; add pyarrow"
  end
end
