defmodule KinoSnex.Frame do
  @moduledoc false
  # A data frame that stays in Python, as a table. Each page is fetched when somebody looks at it, and is sorted there.

  @behaviour Kino.Table

  alias Snex.Display
  alias Snex.Object

  @doc """
  The table of a frame, whose `Snex.Display` has `data`.
  """
  @spec new(Object.t(), map()) :: Kino.Table.t()
  def new(%Object{} = frame, data) do
    Kino.Table.new(__MODULE__, {frame, data}, export: &{"text", exported(&1.frame)})
  end

  # What a notebook keeps as the output of its cell. By the time it is saved, Python may have ended.
  defp exported(frame) do
    case Object.repr(frame, timeout: 10_000) do
      {:ok, text} -> text
      {:error, _error} -> inspect(frame)
    end
  end

  @impl true
  def init({frame, %{"columns" => names, "rows" => rows}}) do
    columns = Enum.with_index(names, fn name, number -> %{key: number, label: name} end)
    info = %{name: frame.type, features: [:refetch, :pagination, :sorting]}
    {:ok, info, %{frame: frame, columns: columns, rows: rows}}
  end

  @impl true
  def get_data(spec, state) do
    order = if order = spec[:order], do: [order_by: order.key, descending: order.direction == :desc], else: []

    case Display.page(state.frame, spec.offset, spec.limit, [timeout: :infinity] ++ order) do
      {:ok, columns} ->
        cells = for values <- columns, do: Enum.map(values, &text/1)
        {:ok, %{columns: state.columns, data: {:columns, cells}, total_rows: state.rows}, state}

      # Such as a column whose values cannot be compared.
      {:error, error} ->
        cells = for {_column, number} <- Enum.with_index(state.columns), do: message(number, error)
        {:ok, %{columns: state.columns, data: {:columns, cells}, total_rows: state.rows}, state}
    end
  end

  defp message(0, error), do: [Exception.message(error)]
  defp message(_number, _error), do: [""]

  defp text(value) when is_binary(value), do: if(String.printable?(value), do: value, else: inspect(value))
  # Asks Python nothing for each of them.
  defp text(%Object{} = object), do: inspect(object)
  defp text(value) when is_atom(value), do: inspect(value)

  defp text(value),
    do: if(not is_list(value) and String.Chars.impl_for(value), do: to_string(value), else: inspect(value))
end
