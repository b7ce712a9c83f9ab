if Code.ensure_loaded?(Explorer.DataFrame) do
  defmodule Snex.Integration.ExplorerTest do
    use ExUnit.Case

    alias Explorer.DataFrame
    alias Explorer.Series
    alias Snex.Integration

    require DataFrame

    setup do
      %{envs: Integration.environments!()}
    end

    defp frame do
      DataFrame.new(
        a: Series.from_list([1, nil, 3]),
        b: Series.from_list([1.5, nil, 2.5]),
        c: Series.from_list(["x", nil, "żółw"]),
        d: Series.from_list([true, nil, false]),
        e: Series.from_list([~D[2026-01-02], nil, ~D[2026-01-03]]),
        f: Series.from_list([~N[2026-01-02 03:04:05.000006], nil, ~N[2026-01-03 00:00:00.000000]]),
        g: Series.from_list(["u", nil, "u"], dtype: :category),
        h: Series.from_list([[1, 2], nil, []]),
        i: Series.from_list([%{"k" => 1}, nil, %{"k" => 2}])
      )
    end

    test "frames become those of each library, and come back the same", %{envs: envs} do
      frame = frame()

      for env <- envs, library <- [:pandas, :polars, :pyarrow] do
        code = "return type(x['x'][0]).__module__.partition('.')[0], {'x': [x['x'][0]]}"
        value = %{"x" => %{"x" => [frame]}}

        assert {:ok, {name, %{"x" => [%DataFrame{} = back]}}} =
                 Snex.pyeval(env, code, value, encoding_opts: [dataframe_as: library])

        assert name == to_string(library)
        assert DataFrame.names(back) == DataFrame.names(frame)
        names = if library == :pandas, do: ~w[a b c d e f g], else: DataFrame.names(frame)
        assert DataFrame.to_columns(back[names]) == DataFrame.to_columns(frame[names])
      end
    end

    test "a lazy frame is computed", %{envs: [env | _]} do
      lazy = frame() |> DataFrame.lazy() |> DataFrame.filter(a > 1)
      assert Snex.pyeval!(env, "return len(x)", %{"x" => lazy}) == 1
    end

    test "series become those of each library, and come back the same", %{envs: envs} do
      series = Series.from_list([1, nil, 3])

      for env <- envs, library <- [:pandas, :polars, :pyarrow] do
        opts = [encoding_opts: [dataframe_as: library]]
        assert {:ok, [%Series{} = back]} = Snex.pyeval(env, "return [x]", %{"x" => series}, opts)
        assert Series.to_list(back) == [1, nil, 3]
      end
    end

    test "frames made in Python are Explorer's", %{envs: envs} do
      zoned = "datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.timezone.utc)"

      for env <- envs do
        code = """
        columns = {"at": [#{zoned}, None], "price": [decimal.Decimal("1.50"), None]}
        return pd.DataFrame({"kind": pd.Categorical(["u", None])}), pl.DataFrame(columns), pa.table(columns)
        """

        assert {:ok, {categories, polars, table}} = Snex.pyeval(env, code)
        assert DataFrame.to_columns(categories) == %{"kind" => ["u", nil]}

        for frame <- [polars, table] do
          assert %{"at" => [%DateTime{} = at, nil], "price" => [price, nil]} = DataFrame.to_columns(frame)
          assert DateTime.compare(at, ~U[2026-07-01 12:00:00Z]) == :eq
          assert Decimal.equal?(price, "1.50")
        end
      end
    end

    test "the example in the page about data works", %{envs: envs} do
      for env <- envs, do: Integration.run_examples("explorer", frames: env)
    end
  end
end
