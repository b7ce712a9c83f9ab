defmodule Snex.Serde do
  @moduledoc """
  How values travel between Elixir and Python.

  | Elixir | Python | back in Elixir |
  |---|---|---|
  | `nil`, `true`, `false` | `None`, `True`, `False` | the same |
  | atom | `snex.Atom` (a `str`), or `snex.DistinctAtom` | atom |
  | integer of any size | `int` | integer |
  | float; `float/1` for those that Elixir cannot write | `float` | float, or `:inf`, `:"-inf"`, `:nan` |
  | binary; `binary/2` | `str`, `bytes`, `bytearray`, `memoryview` | binary |
  | list, tuple, map | `list`, `tuple`, `dict` | the same |
  | `MapSet` | `set`, `frozenset` | `MapSet` |
  | struct | `dict` with `__struct__`, or what its `Snex.Serde.Encoder` says | struct |
  | function | `snex.Function`, a `snex.Term` that can be called: `await f(1, 2)` | the same function |
  | function in `callback/1` | `snex.Callback`, an ordinary Python callable: `f(1, 2)` | the function |
  | pid, reference, port, bitstring, improper list; `term/1` | `snex.Term`, opaque | the same term |
  | `object/3` | an object of that class | |

  In Python, `1`, `1.0` and `True` are the same key of a `dict`, and so are `"name"` and `snex.Atom("name")`: of keys
  that Elixir tells apart and Python does not, one is left. Lists and maps cannot be keys in Python: `TypeError`.

  Depth is limited by memory alone.
  """

  alias Snex.Options

  defmodule Binary do
    @moduledoc false
    @enforce_keys [:data, :as]
    defstruct [:data, :as]
  end

  defmodule Float do
    @moduledoc false
    @enforce_keys [:value]
    defstruct [:value]
  end

  defmodule Term do
    @moduledoc false
    @enforce_keys [:term]
    defstruct [:term]
  end

  defmodule Object do
    @moduledoc false
    @enforce_keys [:module, :class, :args]
    defstruct [:module, :class, :args]
  end

  defmodule Callback do
    @moduledoc false
    @enforce_keys [:function]
    defstruct [:function]
  end

  @typedoc "The Python type that a binary becomes."
  @type binary_as() :: :str | :bytes | :bytearray | :memoryview

  @encoding [
    binary_as: [
      type: {:in, [:str, :bytes, :bytearray, :memoryview]},
      default: nil,
      doc: "`:str`, `:bytes`, `:bytearray`, `:memoryview`"
    ],
    set_as: [type: {:in, [:set, :frozenset]}, default: nil, doc: "`:set`, `:frozenset`"],
    atom_as: [type: {:in, [:atom, :distinct_atom]}, default: nil, doc: "`:atom`, `:distinct_atom`"]
  ]

  @typedoc """
  How values look in Python where there is a choice. The first of each is the default.

  #{Options.documentation(@encoding)}
  """
  @type encoding_opts() :: [unquote(Options.spec(@encoding))]

  @opaque wrapped() :: %Binary{} | %Float{} | %Term{} | %Object{} | %Callback{}

  @binary_as @encoding[:binary_as][:type] |> elem(1)

  @doc """
  A binary, from iodata, that becomes the Python type that `as` names.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return type(x).__name__", %{"x" => Snex.Serde.binary(["a", ?b])})
      {:ok, "bytes"}
  """
  @spec binary(iodata(), binary_as()) :: wrapped()
  def binary(iodata, as \\ :bytes) do
    if as not in @binary_as do
      raise ArgumentError, "expected one of #{inspect(@binary_as)}, got: #{inspect(as)}"
    end

    %Binary{data: IO.iodata_to_binary(iodata), as: as}
  end

  @doc """
  A float, also one that Elixir has no value for: `:inf`, `:"-inf"`, `:nan`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return -x", %{"x" => Snex.Serde.float(:inf)})
      {:ok, :"-inf"}
  """
  @spec float(float() | :inf | :"-inf" | :nan) :: wrapped()
  def float(value) when is_float(value) or value in [:inf, :"-inf", :nan],
    do: %Float{value: value}

  def float(other) do
    raise ArgumentError, "expected a float, :inf, :\"-inf\" or :nan, got: #{inspect(other)}"
  end

  @doc """
  Any term, as an opaque `snex.Term`: Python can keep it and give it back.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return [x, x]", %{"x" => Snex.Serde.term(%{a: 1})})
      {:ok, [%{a: 1}, %{a: 1}]}
  """
  @spec term(term()) :: wrapped()
  def term(term), do: %Term{term: term}

  @doc """
  A Python object: what `module.class(*args)` returns. Arguments are encoded like any value.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> day = Snex.Serde.object("datetime", "date", [2026, 11, 21])
      iex> Snex.pyeval(interpreter, "return day.isoformat()", %{"day" => day})
      {:ok, "2026-11-21"}
  """
  @spec object(String.t(), String.t(), [term()]) :: wrapped()
  def object(module, class, args) when is_binary(module) and is_binary(class) and is_list(args),
    do: %Object{module: module, class: class, args: args}

  def object(module, class, args) do
    raise ArgumentError,
          "expected a module and a class as strings and a list of arguments, got: " <>
            inspect({module, class, args})
  end

  @doc """
  A function that Python calls like one of its own: `f(1, 2)`, without `await`. So it can be given to any Python library, as a
  key for sorting, or as the objective of an optimiser.

  It takes positional arguments, and works on every thread. It runs in a process of its own on the interpreter's node, which belongs to the
  caller: it has its group leader, `$callers` and `Logger` metadata. What it raises is raised in Python as a `snex.ElixirError`.

  On the interpreter's event loop Python waits for the function, and serves others afterwards. The function itself, and tasks
  that it starts, may use the interpreter meanwhile: with code that does not await, or with `run: :thread`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> by_length = Snex.Serde.callback(&String.length/1)
      iex> Snex.pyeval(interpreter, "return sorted(words, key=f)", %{"words" => ["ccc", "a", "bb"], "f" => by_length})
      {:ok, ["a", "bb", "ccc"]}
  """
  @spec callback(function()) :: wrapped()
  def callback(function) when is_function(function), do: %Callback{function: function}

  def callback(other), do: raise(ArgumentError, "expected a function, got: #{inspect(other)}")

  @doc false
  # Options in the form that the native code takes; `nil` for those left out. The last are encoded structs, if any.
  @spec options!(encoding_opts()) :: tuple()
  def options!([]), do: {nil, nil, nil, []}

  def options!(options) do
    options = Options.check!(options, @encoding, :encoding_opts)
    {options.binary_as, options.set_as, options.atom_as, []}
  end
end
