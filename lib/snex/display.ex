defmodule Snex.Display do
  @moduledoc """
  The form in which a notebook shows a Python object.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, half} = Snex.call(py, "fractions.Fraction", [1, 2], returns: :object)
      iex> Snex.Display.of(half)
      {:ok, %Snex.Display{type: "text/plain", data: "Fraction(1, 2)"}}

  `:type` is a MIME type, and `:data` has data of that type: text, the bytes of a picture, or a JSON document as text.
  The form is chosen in Python, in one round trip. It is the first of these that the object has:

    1. what a renderer of its class returns; see `snex.register_renderer` in Python,
    2. for a data frame of pandas, polars or pyarrow, the type `:table`, with a map of `"columns"`, the names of the
       columns, and `"rows"`, the number of rows. `page/4` returns the rows,
    3. for a matplotlib figure, a picture; for a Plotly chart, HTML; for an Altair chart, the Vega-Lite document
       (`"application/vnd.vegalite+json"`, for any version),
    4. `_repr_mimebundle_()`, `_repr_html_()`, `_repr_svg_()`, `_repr_png_()`, `_repr_jpeg_()`, `_repr_markdown_()`, `_repr_latex_()`,
    5. `repr()`, as `"text/plain"`.

  The package `kino_snex` shows them in Livebook.
  """

  alias Snex.Error
  alias Snex.Object

  @representation "snex._display.representation"
  @tables "snex._display.tables"

  @type t() :: %__MODULE__{type: String.t() | :table, data: term()}

  @enforce_keys [:type, :data]
  defstruct [:type, :data]

  @doc """
  Returns the form in which a notebook should show an object.

  `opts` are those of `Snex.call/4`. If one of the object's own methods raises, it returns an error.
  """
  @spec of(Object.t(), Object.opts()) :: {:ok, t()} | {:error, Error.t()}
  def of(%Object{} = object, opts \\ []) do
    with {:ok, {type, data}} <- Snex.call(object.interpreter, {@representation, "represent"}, [object], opts),
         do: {:ok, %__MODULE__{type: type, data: data}}
  end

  @doc """
  Returns rows of a data frame: a list of values for each column, in the order of `"columns"`.

  Values without a form in Elixir are `Snex.Object`s. Besides the options of `Snex.call/4`, `opts` may have:

    * `:order_by` - the index of a column, from 0, by which the frame is sorted before the rows are taken
    * `:descending` - whether the largest value comes first, default `false`
  """
  @spec page(Object.t(), non_neg_integer(), pos_integer() | :infinity, keyword()) ::
          {:ok, [[term()]]} | {:error, Error.t()}
  def page(%Object{} = frame, offset, limit, opts \\ []) do
    {order, opts} = Keyword.split(opts, [:order_by, :descending])
    limit = if limit != :infinity, do: limit
    args = [frame, offset, limit, order[:order_by], Keyword.get(order, :descending, false)]
    Snex.call(frame.interpreter, {@tables, "page"}, args, opts)
  end
end
