defmodule Snex.CallOptions do
  @moduledoc false
  # The options of the functions in `Snex`, each defined once; see `Snex.Options`. To add one, add an entry: its value is then in
  # the map that the function returns.

  alias Snex.Arguments
  alias Snex.CallOptions.Defaults
  alias Snex.Env
  alias Snex.Interpreter
  alias Snex.Options
  alias Snex.Output
  alias Snex.Request
  alias Snex.Serde

  @encoding [
    type: &__MODULE__.encoding/1,
    default: [],
    spec: quote(do: Serde.encoding_opts()),
    doc: "see `t:Snex.Serde.encoding_opts/0`, for this call"
  ]

  @timeout [type: :timeout, default: 5_000, doc: "in ms, or `:infinity`"]

  @run [
    type: {:in, [:loop, :thread]},
    default: :loop,
    doc: """
    `:loop` runs the code on the interpreter's event loop, where it should await rather than block. `:thread` runs it in
    a worker thread of the interpreter, without a running event loop; meanwhile, other callers are served. Use it for
    blocking code, for `asyncio.run`, and for libraries that refuse to run inside an event loop. `await` at the top
    level works there too, on an event loop of its own. See "Blocking code" in the guide to the Python side
    """
  ]

  @on_timeout [
    type: {:in, [:cancel, :leave]},
    default: :cancel,
    doc: """
    `:cancel` cancels the task in Python, and interrupts code that blocks with `snex.Cancelled`. `:leave` lets the work
    finish and drops its answer. If the calling process dies, the work is always cancelled
    """
  ]

  @output [
    type: &Output.destination/1,
    default: nil,
    spec: quote(do: Interpreter.output() | [stdout: Interpreter.output(), stderr: Interpreter.output()]),
    doc:
      "where this call's prints go, as for `Snex.Interpreter.start_link/1`; by default to the interpreter's `:output`"
  ]

  @returns [
    type: {:in, [:auto, :value, :object]},
    doc: """
    how the result is returned. With `:value`, everything in it must have a form in Elixir; otherwise the call returns
    an error. With `:auto`, each value that has no form in Elixir stays in Python, and a `Snex.Object` takes its place.
    `:object` keeps the whole result in Python
    """
  ]

  @retry [
    type: {:integer, 0..1_000},
    spec: quote(do: non_neg_integer()),
    default: 0,
    doc: """
    how many times the call is retried on another interpreter if the one that runs it goes down: for calls of a
    `Snex.Pool` that may safely run twice. An exception in Python is an answer, so the call is not retried
    """
  ]

  # What every request takes.
  @request [
    timeout: @timeout,
    retry: @retry,
    on_timeout: @on_timeout,
    run: @run,
    encoding_opts: @encoding,
    output: @output
  ]

  @get @request ++ [returns: [default: :auto] ++ @returns]

  @call @get ++
          [
            kwargs: [
              type: &__MODULE__.kwargs/1,
              default: %{},
              spec: quote(do: keyword() | %{optional(String.t() | atom()) => term()}),
              doc: "keyword arguments, as a keyword list or a map"
            ]
          ]

  @pyeval @request ++
            [
              returns: [default: :value] ++ @returns,
              returning: [
                type: &__MODULE__.returning/1,
                default: nil,
                spec: quote(do: Snex.returning()),
                doc: """
                a Python expression, or a list of them, whose value the code returns if it ends without a `return`.
                Deprecated, because `return` does the same; warns once for each place where it is used
                """
              ]
            ]

  # A stream that has come too late is closed in any case.
  @stream [
    timeout: Keyword.merge(@timeout, default: :infinity, doc: "for each item, in ms, or `:infinity`"),
    demand: [
      type: {:integer, 1..0xFFFF_FFFF},
      spec: quote(do: pos_integer()),
      default: 256,
      doc: """
      how many items may be on their way, which is how far the generator can run ahead. The interpreter's high-water
      mark also bounds their bytes
      """
    ],
    run: [
      type: {:in, [:auto, :loop, :thread]},
      default: :auto,
      doc: """
      `:auto` runs the code or function as `:loop` does, but advances an ordinary iterator in a worker thread, so that a
      blocking iterator holds up nobody. `:loop` does both on the interpreter's event loop, and `:thread` does both in a
      worker thread: for objects that have to stay on one or the other
      """
    ],
    returns:
      Keyword.update!(@returns, :doc, fn doc ->
        String.replace(String.trim(doc), "the result", "each item") <>
          ". Default: `:value` for code, and `:auto` for functions and objects"
      end),
    encoding_opts: @encoding,
    output: @output
  ]

  @map [
    stream: [
      type: :boolean,
      default: false,
      doc: "`true` returns a stream of the results instead of a list: for large or infinite enumerables"
    ],
    timeout:
      Keyword.merge(@timeout,
        default: :infinity,
        doc: "in ms, or `:infinity`: for the whole list, or, with `stream: true`, for the next results"
      ),
    concurrency: [
      type: {:integer, 1..10_000},
      spec: quote(do: pos_integer()),
      default: nil,
      doc: """
      how many calls may run at a time. With 1, the default, each call starts when the previous one has ended. Higher
      numbers are for functions that await and, with `run: :thread`, for functions that block. For a pool, the default
      is as many calls as the pool runs at a time. Results are always in the order of the elements
      """
    ],
    demand: [
      type: {:integer, 1..1_000_000},
      spec: quote(do: pos_integer()),
      default: 4_000,
      doc: """
      how many elements may travel together. With 1, each result arrives before the next element is requested
      """
    ],
    unpack: [
      type: :boolean,
      default: false,
      doc:
        "`true` passes the items of each element, a list or tuple, as the arguments of a call; otherwise the element is
        the only argument"
    ],
    kwargs: Keyword.update!(@call[:kwargs], :doc, &(&1 <> ", the same for each call")),
    returns:
      [default: :auto] ++ Keyword.update!(@returns, :doc, &String.replace(&1, "the result", "each result")),
    run: @run,
    encoding_opts: @encoding,
    output: @output
  ]

  @make_env [
    from: [
      type: &__MODULE__.from/1,
      default: [],
      spec: quote(do: Snex.from() | [Snex.from()]),
      doc: """
      an environment, `{env, only: names}`, `{env, except: names}`, or a list of these; later ones override earlier ones.
      Context variables are copied as well, except with `:only`. With `:from`, the interpreter can be left out
      """
    ],
    timeout: @timeout,
    retry: @retry,
    encoding_opts: @encoding
  ]

  @doc """
  The table of `Snex.pyeval/4`.
  """
  @spec pyeval() :: Options.table()
  def pyeval, do: @pyeval

  @doc """
  The table of `Snex.make_env/3`.
  """
  @spec make_env() :: Options.table()
  def make_env, do: @make_env

  @doc """
  The table of `Snex.call/4`.
  """
  @spec call() :: Options.table()
  def call, do: @call

  @doc """
  The table of `Snex.get/3`.
  """
  @spec get() :: Options.table()
  def get, do: @get

  @doc """
  The table of `Snex.stream/4`.
  """
  @spec stream() :: Options.table()
  def stream, do: @stream

  @doc """
  The table of `Snex.map/4`.
  """
  @spec map() :: Options.table()
  def map, do: @map

  @doc """
  The options of `Snex.map/4`, checked and with defaults.
  """
  @spec map!(term()) :: %{atom() => term()}
  def map!(opts), do: check!(opts, Defaults.map(), @map, &hint_kwargs/1)

  @doc """
  The options of `Snex.stream/4`, checked and with defaults. `returns` is the default of that option.
  """
  @spec stream!(term(), :value | :auto) :: %{atom() => term()}
  def stream!(opts, returns),
    do: Map.put_new(check!(opts, Defaults.stream(), @stream, &hint/1), :returns, returns)

  @doc """
  The options of `Snex.call/4`, checked and with defaults.
  """
  @spec call!(term()) :: %{atom() => term()}
  def call!(opts), do: check!(opts, Defaults.call(), @call, &hint_kwargs/1)

  @doc """
  The options of `Snex.get/3`, checked and with defaults.
  """
  @spec get!(term()) :: %{atom() => term()}
  def get!(opts), do: check!(opts, Defaults.get(), @get, fn _name -> "" end)

  @doc """
  The options of `Snex.pyeval/4`, checked and with defaults.
  """
  @spec pyeval!(term()) :: %{atom() => term()}
  def pyeval!(opts), do: check!(opts, Defaults.pyeval(), @pyeval, &hint/1)

  @doc """
  The options of `Snex.make_env/3`, checked and with defaults.
  """
  @spec make_env!(term()) :: %{atom() => term()}
  def make_env!(opts), do: check!(opts, Defaults.make_env(), @make_env, &hint/1)

  defp check!([], defaults, _table, _hint), do: defaults
  defp check!(opts, defaults, table, hint), do: Map.merge(defaults, Options.given!(opts, table, nil, hint))

  # An argument of the function, among the options.
  defp hint_kwargs(name), do: " (for an argument of the function, write kwargs: [#{name}: ...])"

  # A variable, in a call that leaves out the options.
  defp hint(name), do: " (for a variable, #{Arguments.example(name)})"

  @doc false
  # As the native code wants them: each with a mode and names.
  @spec from(term()) :: {:ok, [Env.source()]} | {:error, String.t()}
  def from(value) do
    sources = Enum.map(List.wrap(value), &source/1)

    if :error in sources do
      Options.refuse(
        value,
        "an environment, {env, only: names}, {env, except: names} with names as strings, or a list of these"
      )
    else
      {:ok, sources}
    end
  end

  defp source(%Env{} = env), do: {env, 0, []}
  defp source({%Env{} = env, []}), do: {env, 0, []}
  defp source({%Env{} = env, [only: names]}), do: source(env, 1, names)
  defp source({%Env{} = env, [except: names]}), do: source(env, 2, names)
  defp source(_other), do: :error

  defp source(env, mode, names) do
    if is_list(names) and Enum.all?(names, &is_binary/1), do: {env, mode, names}, else: :error
  end

  @doc false
  @spec kwargs(term()) :: {:ok, %{String.t() => term()}} | {:error, String.t()}
  def kwargs(value) do
    names? = fn {name, _value} -> is_atom(name) or (is_binary(name) and String.valid?(name)) end

    if Keyword.keyword?(value) or (is_map(value) and not is_struct(value) and Enum.all?(value, names?)),
      do: {:ok, Map.new(value, fn {name, value} -> {to_string(name), value} end)},
      else: Options.refuse(value, "a keyword list, or a map with names as strings or atoms")
  end

  @doc """
  Arguments by their names, checked.
  """
  @spec kwargs!(term()) :: %{String.t() => term()}
  def kwargs!(value) do
    case kwargs(value) do
      {:ok, kwargs} -> kwargs
      {:error, complaint} -> raise ArgumentError, "arguments by their names #{complaint}"
    end
  end

  @doc false
  @spec encoding(term()) :: {:ok, tuple()}
  def encoding(value), do: {:ok, Serde.options!(value)}

  @doc false
  @spec returning(term()) :: {:ok, Snex.returning()} | {:error, String.t()}
  def returning(value) do
    if is_binary(value) or (is_list(value) and Enum.all?(value, &is_binary/1)),
      do: {:ok, value},
      else: Options.refuse(value, "a Python expression, or a list of them, as strings")
  end

  @doc """
  Those of the request that a call makes, whose time begins now.
  """
  @spec request(map()) :: Request.options()
  def request(opts) do
    opts
    |> Map.take([:timeout, :on_timeout, :output, :retry])
    |> Map.put(:deadline, Request.deadline(opts.timeout))
  end
end
