defmodule Snex.Pool.Options do
  @moduledoc false
  # The options of `Snex.Pool.start_link/1` that are the pool's own, each defined once; see `Snex.Options`. All others are for its
  # interpreters.

  alias Snex.Interpreter
  alias Snex.Options

  @most 0xFFFF_FFFF
  @most_bytes 0x7FFF_FFFF_FFFF_FFFF

  @queue [
    limit: [type: {:integer, 0..@most}, default: 1_000, doc: "how many calls may wait"],
    timeout: [
      type: :timeout,
      default: 5_000,
      doc: "how long a call may wait, in ms, unless its own `:timeout` ends earlier"
    ]
  ]

  @recycle [
    requests: [type: {:integer, 1..@most}, default: nil, doc: "after this many calls"],
    memory: [
      type: {:integer, 1..@most_bytes},
      default: nil,
      doc:
        "when Python and all processes that it has started use more resident memory than this, in bytes; checked once a second"
    ],
    age: [type: {:integer, 1..@most}, default: nil, doc: "after this many ms"],
    jitter: [
      type: &__MODULE__.jitter/1,
      default: 0.1,
      spec: quote(do: float()),
      doc: """
      a fraction, from 0 to 1, by which the limits of each interpreter may be lower, at random, so that not all are
      replaced at the same time
      """
    ]
  ]

  @table [
    name: [
      type: &__MODULE__.name/1,
      default: nil,
      spec: quote(do: GenServer.name()),
      doc: "a name to register, see `t:GenServer.name/0`"
    ],
    interpreter: [
      type: &__MODULE__.interpreter/1,
      default: Interpreter,
      spec: quote(do: module()),
      doc: "a module with `use Snex.Interpreter`, or any other with the same `start_link/1`"
    ],
    size: [
      type: {:integer, 1..10_000},
      default: nil,
      spec: quote(do: pos_integer()),
      doc: "how many interpreters there are; by default `System.schedulers_online/0`"
    ],
    concurrency: [
      type: {:integer, 1..@most},
      default: 1,
      spec: quote(do: pos_integer()),
      doc: """
      how many calls each interpreter runs at a time. More than one pays off for code that awaits, or that releases the
      GIL with `run: :thread`
      """
    ],
    queue: [
      type: &__MODULE__.queue/1,
      default: [],
      spec: quote(do: [unquote(Options.spec(@queue))]),
      doc:
        "limits for calls that wait. A call that exceeds them returns the code `:overloaded`:\n\n" <>
          Options.documentation(@queue)
    ],
    recycle: [
      type: &__MODULE__.recycle/1,
      default: [],
      spec: quote(do: [unquote(Options.spec(@recycle))]),
      doc:
        "when an interpreter is replaced by a fresh one, which causes no errors:\n\n" <>
          Options.documentation(@recycle)
    ],
    fork: [
      type: {:in, [false, true, :each_call]},
      default: false,
      doc: """
      `true` starts one interpreter with the given options, the pool's *template*, and makes the others as copies of it,
      within milliseconds; see `Snex.Interpreter.fork/2`. The `:init_script` runs only in the template.
      `threads: :ignore` makes copies even though the template has threads. `:each_call` gives each call a fresh copy.
      When the call returns, the copy is killed, with all processes that it has started. `:size` is then how many calls
      run at a time, and as many copies are kept ready for the next calls. If the system cannot fork, the interpreters
      start as without this option, with a warning
      """
    ],
    scope: [
      type: {:in, [:node, :cluster]},
      default: :node,
      doc: """
      `:cluster` shares calls with the pools of the same `:name` and `:interpreter` on connected nodes: a call that
      finds no room on its node goes to a less loaded one
      """
    ],
    sync_start?: [
      type: :boolean,
      default: true,
      doc: """
      `false` returns at once; calls wait until the first interpreter has started, and a failed start is retried.
      Otherwise, `start_link/1` returns when all interpreters run, or with the error of the first that could not be
      started
      """
    ],
    sync_start: [alias: :sync_start?]
  ]

  @doc """
  The table of the pool's own options.
  """
  @spec table() :: Options.table()
  def table, do: @table

  @doc """
  The type of all options of `Snex.Pool.start_link/1`, as quoted code.
  """
  @spec spec() :: Macro.t()
  def spec, do: Options.spec(@table)

  @doc """
  Splits options into those of the pool, as a map, and those of its interpreters. Raises `ArgumentError` for one that is neither, or
  has a value that it cannot have.
  """
  @spec split!(term()) :: {%{atom() => term()}, keyword()}
  def split!(opts) do
    # Of an option that both have, the pool's meaning counts.
    everything = @table ++ Keyword.drop(Interpreter.Options.table(), Keyword.keys(@table))
    checked = Options.given!(opts, everything, nil, fn _name -> "" end)
    {own, others} = Keyword.split(opts, Keyword.keys(@table))
    _ = Interpreter.Options.split!(others)
    defaults = Options.check!([], @table)
    own = Map.merge(defaults, Map.take(checked, Keyword.keys(own) ++ [:sync_start?]))
    own = %{own | size: own.size || System.schedulers_online()}
    if own.scope == :cluster, do: shared_name!(own.name)

    if own.fork != false and others[:template] do
      raise ArgumentError,
            "the option :fork cannot be #{inspect(own.fork)} with the option :template: a pool either has a template of
            its own, or copies " <> "another interpreter"
    end

    if own.fork == :each_call and own.concurrency != 1 do
      raise ArgumentError,
            "the option :concurrency cannot be #{own.concurrency} with fork: :each_call: a copy runs one call. The option :size says " <>
              "how many run at a time"
    end

    {own, others}
  end

  # A global name is one pool for all nodes.
  defp shared_name!(name) when (is_atom(name) and name != nil) or elem(name, 0) == :via, do: :ok

  defp shared_name!(name) do
    raise ArgumentError,
          "option :scope cannot be :cluster with the :name #{inspect(name)}: expected a name that the pools on all nodes
          can share, " <>
            "an atom or {:via, module, term}"
  end

  @doc """
  A size, checked.
  """
  @spec size!(term()) :: pos_integer()
  def size!(nil), do: size!(:none)
  def size!(size), do: Options.value!(:size, size, @table)

  @doc false
  @spec name(term()) :: {:ok, GenServer.name()} | {:error, String.t()}
  def name(name) when is_atom(name), do: {:ok, name}
  def name({:global, _term} = name), do: {:ok, name}
  def name({:via, module, _term} = name) when is_atom(module), do: {:ok, name}
  def name(other), do: Options.refuse(other, "an atom, {:global, term} or {:via, module, term}")

  @doc false
  @spec interpreter(term()) :: {:ok, module()} | {:error, String.t()}
  def interpreter(module) do
    if is_atom(module) and Code.ensure_loaded?(module) and function_exported?(module, :start_link, 1) and
         function_exported?(module, :child_spec, 1),
       do: {:ok, module},
       else: Options.refuse(module, "a module with `use Snex.Interpreter`")
  end

  @doc false
  @spec queue(term()) :: {:ok, map()}
  def queue(value), do: {:ok, Options.check!(value, @queue, :queue)}

  @doc false
  @spec recycle(term()) :: {:ok, map()}
  def recycle(value), do: {:ok, Options.check!(value, @recycle, :recycle)}

  @doc false
  @spec jitter(term()) :: {:ok, number()} | {:error, String.t()}
  def jitter(value) do
    if is_number(value) and value >= 0 and value <= 1,
      do: {:ok, value},
      else: Options.refuse(value, "a number from 0 to 1")
  end
end
