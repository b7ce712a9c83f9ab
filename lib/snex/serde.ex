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
  | an enumerable in `stream/2` | `snex.Stream`, an iterator and async iterator | |
  | `Explorer.DataFrame`, `Explorer.Series`, `Snex.Arrow` | frame or series of pandas, polars or pyarrow, see the option `:dataframe_as` | Explorer's, or `Snex.Arrow` without it |

  Python's other everyday types become the nearest that Elixir has:

  | Python | Elixir |
  |---|---|
  | `datetime.date`, `time`; `datetime` without a zone | `Date`, `Time`; `NaiveDateTime` |
  | `datetime.datetime` with a zone | `DateTime`: in that zone if it has a name, otherwise the same moment in UTC |
  | `datetime.timedelta` | `Duration` of days, seconds and microseconds |
  | `decimal.Decimal` | `Decimal`, if the application has that library |
  | `range` | `Range` |
  | `enum.Enum` | its value |
  | `uuid.UUID`, `pathlib.PurePath` | string |
  | dataclass, `types.MappingProxyType` | map; a dataclass with strings as keys |
  | `collections.deque`, `array.array`, views of `collections.abc` | list |
  | `fractions.Fraction`, `complex` | tuple of numerator and denominator, of real and imaginary part |
  | scalars of numpy | number, boolean, `Date`, `NaiveDateTime`, `Duration`; `nil` for `NaT` |
  | arrays: `numpy.ndarray`, `memoryview` of numbers, and others; see [Data](data.md) | `Nx.Tensor`, or `Snex.Array` without Nx |
  | `pandas.Timestamp`, `Timedelta`; `NaT`, `NA` | `NaiveDateTime` or `DateTime`, `Duration`; `nil` |
  | frames and series of pandas, polars and pyarrow; objects with `__arrow_c_stream__` | `Explorer.DataFrame`, `Explorer.Series`; without Explorer, `Snex.Arrow` |

  A class is treated like the nearest of its base classes in these tables. Encoders come first: that of `snex.set_custom_encoder`, then those of
  `snex.register_encoder`. Anything else is an error that says where the value is, or stays in Python with `returns: :auto`.

  With `encoding_opts: [structs_as: :native]`, structs that have a counterpart in Python become that: `Date`, `Time`, `NaiveDateTime` and
  `DateTime` those of `datetime`, `Duration` a `timedelta`, `Decimal` a `decimal.Decimal`, `Range` a `range`, and `URI` a string. An
  implementation of `Snex.Serde.Encoder` comes first. What Python cannot hold, such as a year after 9999, is an error that says where it is.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link(encoding_opts: [structs_as: :native])
      iex> Snex.pyeval(interpreter, "return day.replace(month=12)", %{"day" => ~D[2026-11-21]})
      {:ok, ~D[2026-12-21]}

  In Python, `1`, `1.0` and `True` are the same key of a `dict`, and so are `"name"` and `snex.Atom("name")`. A map or `MapSet` with keys
  that Elixir tells apart and Python does not is an error of that call; with `atom_as: :distinct_atom`, strings and atoms are never
  equal. Lists and maps cannot be keys in Python: `TypeError`.

  Depth is limited by memory alone.
  """

  alias Snex.Options
  alias Snex.Serde.Stream

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
    atom_as: [type: {:in, [:atom, :distinct_atom]}, default: nil, doc: "`:atom`, `:distinct_atom`"],
    structs_as: [
      type: {:in, [:dict, :native]},
      default: nil,
      doc: "`:dict`, `:native`: dates, times, `Decimal`, `Range` and `URI` as what Python has for them"
    ],
    dataframe_as: [
      type: {:in, [:pandas, :polars, :pyarrow]},
      default: nil,
      doc:
        "`:pandas`, `:polars`, `:pyarrow`: the library whose frames data frames become; left out, the first of these that is installed"
    ]
  ]

  @typedoc """
  How values look in Python where there is a choice. The first of each is the default.

  #{Options.documentation(@encoding)}
  """
  @type encoding_opts() :: [unquote(Options.spec(@encoding))]

  @opaque wrapped() :: %Binary{} | %Float{} | %Term{} | %Object{} | %Callback{} | %Stream{}

  @binary_as @encoding[:binary_as][:type] |> elem(1)

  @doc """
  A binary, from iodata, that becomes the Python type that `as` names.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> bytes = Snex.Serde.binary(["a", ?b])
      iex> Snex.pyeval(interpreter, "return type(x).__name__", %{"x" => bytes})
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
  Returns what becomes the object `module.class(*args)` in Python.

  Arguments are encoded like any value.

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
  Returns a function that Python calls like one of its own: `f(1, 2)`, without `await`.

  It can be given to any Python library, as a key for sorting or as the objective of an optimiser. It takes positional arguments, and works on every thread. It runs in a process of its own on the interpreter's node, which belongs to the
  caller: it has its group leader, `$callers` and `Logger` metadata. What it raises is raised in Python as a `snex.ElixirError`.

  On the interpreter's event loop Python waits for the function, and serves others afterwards. The function itself, and tasks
  that it starts, may use the interpreter meanwhile: with code that does not await, or with `run: :thread`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> by_length = Snex.Serde.callback(&String.length/1)
      iex> variables = %{"words" => ["ccc", "a", "bb"], "f" => by_length}
      iex> Snex.pyeval(interpreter, "return sorted(words, key=f)", variables)
      {:ok, ["a", "bb", "ccc"]}
  """
  @spec callback(function()) :: wrapped()
  def callback(function) when is_function(function), do: %Callback{function: function}

  def callback(other), do: raise(ArgumentError, "expected a function, got: #{inspect(other)}")

  @stream [
    demand: [
      type: {:integer, 1..0xFFFF_FFFF},
      default: 1_024,
      doc: "how many items the enumerable may be ahead of the Python code"
    ],
    encoding_opts: [
      type: &__MODULE__.encoding/1,
      spec: quote(do: encoding_opts()),
      default: [],
      doc: "how the items look in Python; what is left out is as in the call that brings the stream there"
    ]
  ]

  @typedoc """
  Options of `stream/2`.

  #{Options.documentation(@stream)}
  """
  @type stream_opt() :: unquote(Options.spec(@stream))

  @doc """
  Returns what Python iterates as a stream, with `async for` or a plain `for`.

  In Python it is a `snex.Stream`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> words = Snex.Serde.stream(Stream.map(["a", "b"], &String.upcase/1))
      iex> Snex.pyeval(interpreter, "return [w async for w in words]", %{"words" => words})
      {:ok, ["A", "B"]}

  Items are made on demand, so an enumerable without an end is fine:

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> numbers = Snex.Serde.stream(Stream.iterate(1, &(&1 * 2)))
      iex> code = "return next(n for n in numbers if n > 1000)"
      iex> Snex.pyeval(interpreter, code, %{"numbers" => numbers})
      {:ok, 1024}

  The enumerable runs in a process of its own, on this node, from the moment when Python asks for the first item. The process belongs to
  the caller of `Snex.pyeval/4`: it has its group leader, `$callers` and `Logger` metadata. Each item is sent as soon as it is there.
  What the enumerable raises, exits with or throws is raised in Python as a `snex.ElixirError`, after all items before it.

  The stream ends with the call that has brought it to Python, or with the Python request whose call of an Elixir function has returned it; also
  when Python closes it or drops it. Then the enumerable is ended as `Enum.take/2` does it, so that files are closed. An enumerable that does
  not come back within five seconds is killed.

  A stream can be used anywhere in a value, except for the variables of `Snex.make_env/3` and the items of another stream, which is an
  `ArgumentError`. Used in two places of one value, it is the same iterator there. Each further call starts the enumerable anew.

  #{Options.documentation(@stream)}
  """
  @spec stream(Enumerable.t(), [stream_opt()]) :: wrapped()
  def stream(enumerable, opts \\ []) do
    if Enumerable.impl_for(enumerable) == nil or
         (is_function(enumerable) and not is_function(enumerable, 2)) do
      raise ArgumentError,
            "expected an enumerable, got: #{inspect(enumerable, limit: 10, printable_limit: 100)}"
    end

    opts = Options.check!(opts, @stream)

    %Stream{
      enumerable: enumerable,
      demand: opts.demand,
      encoding: opts.encoding_opts,
      node: node(),
      reference: make_ref()
    }
  end

  @doc false
  @spec encoding(term()) :: {:ok, tuple()}
  def encoding(options), do: {:ok, options!(options)}

  @doc false
  # Options in the form that the native code takes, see `options.rs`; `nil` for those left out.
  @spec options!(encoding_opts()) :: tuple()
  def options!([]), do: {nil, nil, nil, [], nil, nil}

  def options!(options) do
    options = Options.check!(options, @encoding, :encoding_opts)
    {options.binary_as, options.set_as, options.atom_as, [], options.structs_as, options.dataframe_as}
  end
end
