defmodule Snex.DisplayLibrariesTest do
  # What notebooks show of the libraries that people use in them.
  use Snex.Case, async: true

  alias Snex.Cell
  alias Snex.Display
  alias Snex.Object

  @moduletag :slow
  @moduletag timeout: 600_000

  @toml """
  [project]
  name = "display-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["altair>=5", "matplotlib>=3.9", "pandas>=2.2", "pillow>=11", "plotly>=6", "polars>=1", "pyarrow>=18"]
  """

  setup_all do
    options = [pyproject_toml: @toml, init_script: "import pandas as pd, polars as pl, pyarrow as pa"]
    {:ok, inp: start_supervised!({Interpreter, options})}
  end

  setup %{inp: inp} do
    {:ok, env} = Snex.make_env(inp)
    {:ok, env: env}
  end

  defp run!(env, code) do
    {:ok, cell} = Cell.run(env, code, %{}, timeout: 60_000)
    cell
  end

  test "figures of matplotlib that are open are pictures, and closed afterwards", %{env: env} do
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);\nplt.figure(); plt.plot([2, 1]);"

    assert %Cell{value: nil, figures: [<<0x89, "PNG", _::binary>>, <<0x89, "PNG", _::binary>>]} =
             run!(env, code)

    assert %Cell{value: "agg", figures: []} = run!(env, "import matplotlib; matplotlib.get_backend().lower()")
  end

  test "a figure that is the value of the cell is not shown twice", %{env: env} do
    code = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nfig"
    assert %Cell{value: %Object{} = figure, figures: []} = run!(env, code)
    assert {:ok, %Display{type: "image/png", data: <<0x89, "PNG", _::binary>>}} = Display.of(figure)
  end

  test "a chart of altair is a Vega-Lite document", %{env: env} do
    code = """
    import altair as alt
    alt.Chart(pd.DataFrame({"a": [1, 2], "b": [3, 4]})).mark_line().encode(x="a", y="b")
    """

    assert %Cell{value: %Object{} = chart} = run!(env, code)
    assert {:ok, %Display{type: "application/vnd.vegalite+json", data: json}} = Display.of(chart)
    assert %{"mark" => %{"type" => "line"}} = Snex.call!(env, "json.loads", [json])
  end

  test "a chart of plotly is HTML", %{env: env} do
    code = "import plotly.graph_objects as go\ngo.Figure(go.Bar(x=['Oslo', 'Rome'], y=[4, 17]))"
    assert %Cell{value: %Object{} = chart} = run!(env, code)
    assert {:ok, %Display{type: "text/html", data: html}} = Display.of(chart)
    assert html =~ "Plotly.newPlot("
    assert html =~ "Oslo"
    # Its JavaScript is loaded, and not part of each chart.
    assert byte_size(html) < 100_000
  end

  test "an image of Pillow is a picture", %{env: env} do
    assert %Cell{value: %Object{} = image} =
             run!(env, "from PIL import Image\nImage.new('RGB', (2, 3), 'red')")

    assert {:ok, %Display{type: "image/png", data: <<0x89, "PNG", _::binary>>}} = Display.of(image)
  end

  for {library, frame} <- [
        pandas: ~S|pd.DataFrame({"n": [3, 1, 2], "s": ["c", "a", "b"]})|,
        polars: ~S|pl.DataFrame({"n": [3, 1, 2], "s": ["c", "a", "b"]})|,
        pyarrow: ~S|pa.table({"n": [3, 1, 2], "s": ["c", "a", "b"]})|
      ] do
    test "a data frame of #{library} is a table, paged and sorted in Python", %{env: env} do
      assert %Cell{value: %Object{} = frame} = run!(env, unquote(frame))
      assert Display.of(frame) == {:ok, %Display{type: :table, data: %{"columns" => ["n", "s"], "rows" => 3}}}
      assert Display.page(frame, 0, 2) == {:ok, [[3, 1], ["c", "a"]]}
      assert Display.page(frame, 2, 2) == {:ok, [[2], ["b"]]}
      assert Display.page(frame, 0, 1, order_by: 0) == {:ok, [[1], ["a"]]}

      assert Display.page(frame, 0, :infinity, order_by: 1, descending: true) ==
               {:ok, [[3, 2, 1], ["c", "b", "a"]]}
    end
  end

  test "the index of a pandas frame is a column, and sorts as one", %{env: env} do
    code = ~S|pd.DataFrame({"n": [1.5, None]}, index=pd.Index(["x", "y"], name="key"))|
    assert %Cell{value: frame} = run!(env, code)
    assert {:ok, %Display{data: %{"columns" => ["key", "n"]}}} = Display.of(frame)
    assert {:ok, [["y", "x"], [_nan, 1.5]]} = Display.page(frame, 0, 5, order_by: 0, descending: true)
  end

  test "columns with the same name are all there, and dates arrive as dates", %{env: env} do
    code = ~S|pd.DataFrame([[1, pd.Timestamp("2026-01-02")]], columns=["a", "a"])|
    assert %Cell{value: frame} = run!(env, code)
    assert {:ok, %Display{data: %{"columns" => ["a", "a"]}}} = Display.of(frame)
    assert {:ok, [[1], [date]]} = Display.page(frame, 0, 5)
    assert to_string(date) =~ "2026-01-02"
  end
end
