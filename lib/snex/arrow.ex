defmodule Snex.Arrow do
  @moduledoc """
  A data frame or a series, as an Arrow IPC stream.

  Python's data frames become a `Snex.Arrow` if the application does not have the library Explorer; with Explorer, they
  become an `Explorer.DataFrame` or `Explorer.Series` at once. Elixir need not know what is in the stream: it can keep
  it, store it, send it to another node, or pass it back to Python, where it becomes a frame of the library named by the
  encoding option `:dataframe_as`.

      {:ok, %Snex.Arrow{} = frame} = Snex.pyeval(py, "return pandas.DataFrame({'a': [1, 2]})")
      {:ok, 3} = Snex.pyeval(py, "return int(frame['a'].sum())", %{"frame" => frame})

  The stream of a series is that of a frame with the series as its first column.

  `inspect/1` shows the size, and also the columns if the beginning of the stream can be read:

      iex> Snex.Arrow.new("no stream")
      #Snex.Arrow<frame, 9 bytes>
  """

  alias Snex.Arrow.Schema

  @enforce_keys [:data]
  defstruct [:data, kind: :frame]

  @typedoc """
  `data` is the stream: a schema and any number of record batches. `kind` says whether it is the stream of a frame or of
  a series.
  """
  @type t() :: %__MODULE__{data: binary(), kind: kind()}

  @type kind() :: :frame | :series

  # Libraries that Snex doesn't depend on.
  @frame Explorer.DataFrame
  @series Explorer.Series

  @doc """
  Returns the frame or series in an Arrow IPC stream, for instance from a file or an HTTP response.

  The stream is not checked here. Python refuses a stream that it cannot read.

      iex> Snex.Arrow.new(<<0>>, :series).kind
      :series
  """
  @spec new(iodata(), kind()) :: t()
  def new(data, kind \\ :frame) when kind in [:frame, :series],
    do: %__MODULE__{data: IO.iodata_to_binary(data), kind: kind}

  @doc """
  Returns the names of the columns, or `:error` if the stream does not begin with a schema.

      iex> Snex.Arrow.columns(Snex.Arrow.new("no stream"))
      :error
  """
  @spec columns(t()) :: {:ok, [String.t()]} | :error
  def columns(%__MODULE__{data: data}), do: Schema.names(data)

  @doc """
  Returns the `Explorer.DataFrame` or `Explorer.Series` in a stream.

  Raises `ArgumentError` if Explorer is not loaded. If Explorer cannot read the stream, its exception is raised.
  """
  @spec to_explorer(t()) :: struct()
  def to_explorer(%__MODULE__{kind: kind, data: data}) do
    present!()
    frame = apply(@frame, :load_ipc_stream!, [data])
    if kind == :series, do: apply(@frame, :pull, [frame, 0]), else: frame
  end

  @doc """
  Returns the stream of an `Explorer.DataFrame` or `Explorer.Series`.

  Snex does the same with frames and series on their way to Python. A lazy frame is computed. Raises `ArgumentError` if
  Explorer is not loaded.
  """
  @spec from_explorer(struct()) :: t()
  def from_explorer(%{__struct__: @frame} = frame) do
    present!()
    %__MODULE__{data: apply(@frame, :dump_ipc_stream!, [apply(@frame, :collect, [frame])])}
  end

  def from_explorer(%{__struct__: @series} = series) do
    present!()
    name = Map.get(series, :name) || ""
    %{from_explorer(apply(@frame, :new, [[{name, series}]])) | kind: :series}
  end

  def from_explorer(other) do
    raise ArgumentError,
          "expected an Explorer.DataFrame or Explorer.Series, got: #{inspect(other, limit: 10, printable_limit: 100)}"
  end

  @doc false
  # Whether Explorer is there, in a version that knows such streams.
  @spec explorer?() :: boolean()
  def explorer?, do: Code.ensure_loaded?(@frame) and function_exported?(@frame, :load_ipc_stream!, 1)

  defp present! do
    if not explorer?() do
      raise ArgumentError,
            "the application has no Explorer of version 0.6 or later; add {:explorer, \"~> 0.11\"} to its dependencies"
    end
  end

  defimpl Inspect do
    import Inspect.Algebra

    # More are not shown.
    @shown 20

    def inspect(arrow, options) do
      size = if is_binary(arrow.data), do: "#{byte_size(arrow.data)} bytes", else: "no stream"
      kind = if is_atom(arrow.kind), do: to_string(arrow.kind), else: "?"
      concat(["#Snex.Arrow<", kind, ", ", size, columns(arrow, options), ">"])
    end

    defp columns(%{data: data} = arrow, options) when is_binary(data) do
      case Snex.Arrow.columns(arrow) do
        {:ok, names} -> concat([", ", to_doc(names, %{options | limit: min(options.limit, @shown)})])
        :error -> empty()
      end
    end

    defp columns(_arrow, _options), do: empty()
  end
end
