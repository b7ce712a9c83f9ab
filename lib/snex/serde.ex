defmodule Snex.Serde do
  @moduledoc """
  How values travel between Elixir and Python.

  | Elixir | Python | back in Elixir |
  |---|---|---|
  | `nil`, `true`, `false` | `None`, `True`, `False` | the same |
  | atom | `snex.Atom` (a `str`), or `snex.DistinctAtom` | atom |
  | integer of any size | `int` | integer |
  | float; `float/1` for infinities and NaN | `float` | float, or `:inf`, `:"-inf"`, `:nan` |
  | binary; `binary/2` | `str`, `bytes`, `bytearray`, `memoryview` | binary |
  | list, tuple, map | `list`, `tuple`, `dict` | the same |
  | `MapSet` | `set`, `frozenset` | `MapSet` |
  | struct | `dict` with `__struct__`, or what its `Snex.Serde.Encoder` returns | struct |
  | function | `snex.Function`, a callable `snex.Term`: `await f(1, 2)` | the same function |
  | function in `callback/1` | `snex.Callback`, an ordinary Python callable: `f(1, 2)` | the function |
  | pid, reference, port, bitstring, improper list; `term/1` | `snex.Term`, opaque | the same term |
  | `object/3` | an object of that class | |
  | enumerable in `stream/2` | `snex.Stream`, an iterator and async iterator | |
  | `Explorer.DataFrame`, `Explorer.Series`, `Snex.Arrow` | frame or series of pandas, polars or pyarrow; see the option `:dataframe_as` | Explorer's, or `Snex.Arrow` without Explorer |

  Other common Python types become the nearest type in Elixir:

  | Python | Elixir |
  |---|---|
  | `datetime.date`, `time`; `datetime` without a zone | `Date`, `Time`; `NaiveDateTime` |
  | `datetime.datetime` with a zone | `DateTime`, in that zone if the zone has a name, otherwise in UTC |
  | `datetime.timedelta` | `Duration` of days, seconds and microseconds |
  | `decimal.Decimal` | `Decimal`, if the application has that library |
  | `range` | `Range` |
  | `enum.Enum` | its value |
  | `uuid.UUID`, `pathlib.PurePath` | string |
  | dataclass, `types.MappingProxyType` | map; for a dataclass, with strings as keys |
  | `collections.deque`, `array.array`, views of `collections.abc` | list |
  | `fractions.Fraction`, `complex` | tuple of numerator and denominator, or of real and imaginary part |
  | scalars of numpy | number, boolean, `Date`, `NaiveDateTime`, `Duration`; `nil` for `NaT` |
  | arrays: `numpy.ndarray`, `memoryview` of numbers, and others; see [Data](data.md) | `Nx.Tensor`, or `Snex.Array` without Nx |
  | `pandas.Timestamp`, `Timedelta`; `NaT`, `NA` | `NaiveDateTime` or `DateTime`, `Duration`; `nil` |
  | frames and series of pandas, polars and pyarrow; objects with `__arrow_c_stream__` | `Explorer.DataFrame`, `Explorer.Series`; without Explorer, `Snex.Arrow` |

  A class that is not in these tables is treated like its nearest base class that is. Encoders come first: that of
  `snex.set_custom_encoder`, then those of `snex.register_encoder`. With `returns: :auto`, any other value stays in
  Python; otherwise it is an error that says where the value is.

  With `encoding_opts: [structs_as: :native]`, structs become their counterparts in Python: `Date`, `Time`,
  `NaiveDateTime` and `DateTime` become the types of `datetime`, `Duration` a `timedelta`, `Decimal` a
  `decimal.Decimal`, `Range` a `range`, and `URI` a string. An implementation of `Snex.Serde.Encoder` comes first. A
  value that Python cannot represent, such as a year after 9999, is an error that says where the value is.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link(encoding_opts: [structs_as: :native])
      iex> Snex.pyeval(interpreter, "return day.replace(month=12)", %{"day" => ~D[2026-11-21]})
      {:ok, ~D[2026-12-21]}

  In Python, `1`, `1.0` and `True` are the same key of a `dict`, and so are `"name"` and `snex.Atom("name")`. If a map
  or `MapSet` has keys that differ in Elixir but are equal in Python, the call returns an error; with
  `atom_as: :distinct_atom`, strings and atoms are never equal. Lists and maps cannot be keys in Python, and cause a
  `TypeError`.

  Only memory limits how deeply values can be nested.
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
      doc:
        "`:dict`, `:native`: dates, times, `Decimal`, `Range` and `URI` become their counterparts in Python"
    ],
    dataframe_as: [
      type: {:in, [:pandas, :polars, :pyarrow]},
      default: nil,
      doc:
        "`:pandas`, `:polars`, `:pyarrow`: the library that data frames are made with, by default the first of these
        that is installed"
    ]
  ]

  @typedoc """
  Which Python types values become, where there is a choice. The first of each is the default.

  #{Options.documentation(@encoding)}
  """
  @type encoding_opts() :: [unquote(Options.spec(@encoding))]

  @opaque wrapped() :: %Binary{} | %Float{} | %Term{} | %Object{} | %Callback{} | %Stream{}

  @binary_as @encoding[:binary_as][:type] |> elem(1)

  @doc """
  Returns a binary, from iodata, that becomes the Python type named by `as`.

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
  Returns a float for Python, including those that Elixir does not have: `:inf`, `:"-inf"`, `:nan`.

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
  Returns any term as an opaque `snex.Term`, which Python can keep and return.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return [x, x]", %{"x" => Snex.Serde.term(%{a: 1})})
      {:ok, [%{a: 1}, %{a: 1}]}
  """
  @spec term(term()) :: wrapped()
  def term(term), do: %Term{term: term}

  @doc """
  Returns a value that becomes the object `module.class(*args)` in Python.

  The arguments are encoded like any other value.

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

  It can be passed to any Python library, for instance as a sort key or as the objective of an optimiser. It takes
  positional arguments, and can be called from any thread. It runs in a process of its own on the interpreter's node,
  with the caller's group leader, `$callers` and `Logger` metadata. Its exceptions are raised in Python as a
  `snex.ElixirError`.

  On the interpreter's event loop, Python waits for the function, and serves other callers afterwards. Meanwhile, the
  function itself and tasks that it starts may use the interpreter, with code that does not await or with
  `run: :thread`.

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
      doc: "how many items the enumerable may run ahead of the Python code"
    ],
    encoding_opts: [
      type: &__MODULE__.encoding/1,
      spec: quote(do: encoding_opts()),
      default: [],
      doc:
        "which Python types the items become; options that are left out are those of the call that passes the stream"
    ]
  ]

  @typedoc """
  Options of `stream/2`.

  #{Options.documentation(@stream)}
  """
  @type stream_opt() :: unquote(Options.spec(@stream))

  @doc """
  Returns a stream that Python iterates with `async for` or a plain `for`.

  In Python it is a `snex.Stream`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> words = Snex.Serde.stream(Stream.map(["a", "b"], &String.upcase/1))
      iex> Snex.pyeval(interpreter, "return [w async for w in words]", %{"words" => words})
      {:ok, ["A", "B"]}

  Items are produced on demand, so the enumerable may be infinite:

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> numbers = Snex.Serde.stream(Stream.iterate(1, &(&1 * 2)))
      iex> code = "return next(n for n in numbers if n > 1000)"
      iex> Snex.pyeval(interpreter, code, %{"numbers" => numbers})
      {:ok, 1024}

  The enumerable runs in a process of its own, on this node, and starts when Python asks for the first item. The process
  has the group leader, `$callers` and `Logger` metadata of the caller of `Snex.pyeval/4`. Each item is sent as soon as
  it is available. If the enumerable raises, exits or throws, Python raises a `snex.ElixirError` after all earlier
  items.

  The stream ends with the call that passed it to Python, or with the Python request whose call of an Elixir function
  returned it. It also ends when Python closes or drops it. Then the enumerable is halted as by `Enum.take/2`, so that
  files are closed. An enumerable that does not return within five seconds is killed.

  A stream can be used anywhere in a value, but not in the variables of `Snex.make_env/3` or the items of another
  stream, where it raises an `ArgumentError`. In two places of one value, it is the same iterator. Each further call
  starts the enumerable from the beginning.

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
