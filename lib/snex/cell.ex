defmodule Snex.Cell do
  @moduledoc """
  Runs Python code as a notebook runs a cell.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(py)
      iex> {:ok, cell} = Snex.Cell.run(env, "half = n / 2\\nhalf + 1", %{"n" => 5})
      iex> {cell.value, cell.bound}
      {3.5, %{"half" => 2.5}}

  The value is that of the final expression; a semicolon after it suppresses the value. `:bound` has the names that the
  code assigns at its top level. Each matplotlib figure that is still open afterwards becomes a PNG picture in
  `:figures`, and is closed; `MPLBACKEND` is set to `Agg` unless it has a value. `display(x)` shows something while the
  code runs.

  An object that has a richer form than text (a data frame, a figure, an image) stays in Python as a `Snex.Object`, for
  `Snex.Display.of/2`. Other values are returned as with `returns: :auto` of `Snex.call/4`.

  The package `kino_snex` builds its `~PY` on this.
  """

  alias Snex.Code
  alias Snex.Display
  alias Snex.Env
  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Object
  alias Snex.Serde

  @cell "snex._display.cell"

  @type t() :: %__MODULE__{value: term(), bound: %{optional(String.t()) => term()}, figures: [binary()]}

  @enforce_keys [:value, :bound, :figures]
  defstruct [:value, :bound, :figures]

  @doc """
  Returns the names that the code reads, in any of its scopes, those that it assigns at its top level, and whether it
  ends with an expression, which has no semicolon after it.

  The assigned names don't include those of imports, functions and classes.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.Cell.names(py, "total = sum(x for x in rows)")
      {:ok, %{reads: ["sum", "x", "rows"], binds: ["total"], has_value: false}}

  If the code does not parse, the error has an exception of type `"SyntaxError"`. `opts` are those of `Snex.call/4`.
  """
  @spec names(Env.t() | Interpreter.server(), String.t() | Code.t(), keyword()) ::
          {:ok, %{reads: [String.t()], binds: [String.t()], has_value: boolean()}} | {:error, Error.t()}
  def names(where, code, opts \\ []) do
    %Code{src: source} = code = Code.wrap(code)
    {file, line} = Code.location(code)

    args = [source, file || "<Snex.Code>", max(line, 1)]

    with {:ok, names} <- Snex.call(where, {@cell, "names"}, args, opts),
         do: {:ok, %{reads: names["reads"], binds: names["binds"], has_value: names["has_value"]}}
  end

  @doc """
  Runs the code in an environment, with the variables `vars`, and returns a `t:t/0`, in one round trip.

  Besides the options of `Snex.pyeval/4`, except `:returns`, `opts` may have:

    * `:display` - a function that `display(x)` in the code calls with a `Snex.Display` and the object itself. The
      default prints its text
  """
  @spec run(Env.t(), String.t() | Code.t(), map(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def run(%Env{} = env, code, vars \\ %{}, opts \\ []) do
    code = Code.wrap(code)
    {display, opts} = Keyword.pop(opts, :display, &print/2)

    show =
      Serde.callback(fn type, data, object ->
        display.(%Display{type: type, data: data}, object)
        nil
      end)

    {file, line} = Code.location(code)
    names = for {name, value} <- vars, into: %{}, do: {text(to_string(name)), value}

    with {:ok, {value, bound, figures}} <-
           Snex.call(env, {@cell, "run"}, [text(code.src), file && text(file), line, names, show], opts),
         do: {:ok, %__MODULE__{value: value, bound: bound, figures: figures}}
  end

  # Whatever the options say of other binaries.
  defp text(binary), do: Serde.binary(binary, :str)

  defp print(%Display{type: "text/plain", data: text}, _object), do: IO.puts(text)
  defp print(_display, object), do: IO.puts(Object.repr!(object))
end
