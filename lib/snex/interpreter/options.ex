defmodule Snex.Interpreter.Options do
  @moduledoc false
  # The options of `Snex.Interpreter.start_link/1`: each is defined once, in the table below. Its check, its default, its
  # documentation, the type `t:Snex.Interpreter.option/0` and what `use Snex.Interpreter` accepts come from there. What the
  # entries mean is in `Snex.Options`. To add an option, add an entry; its value is then in the map that `split!/1` returns.

  alias Snex.Interpreter
  alias Snex.Interpreter.Environment
  alias Snex.Interpreter.Options.Checks
  alias Snex.Interpreter.Sends
  alias Snex.Options
  alias Snex.Output
  alias Snex.Project
  alias Snex.Serde

  @most 0xFFFF_FFFF
  @most_bytes 0x7FFF_FFFF_FFFF_FFFF

  @limits [
    # No Python starts with less.
    memory: [type: {:integer, (16 * 1024 * 1024)..@most_bytes}, default: nil, doc: "bytes of address space"],
    cpu: [type: {:integer, 1..@most}, default: nil, doc: "seconds of processor time"],
    # CPython needs 12 to start, to use a thread and to run another program.
    open_files: [type: {:integer, 16..@most}, default: nil, doc: "descriptors, 16 or more"],
    nice: [
      type: {:integer, -20..19},
      default: nil,
      doc: "niceness, from -20 to 19; a value below the VM's own needs the privilege for it"
    ],
    # Every answer that carries nothing fits.
    reply: [
      type: {:integer, 64..@most_bytes},
      default: 2 * 1024 * 1024 * 1024,
      doc: """
      the largest encoded size, in bytes, of a value that Python sends: a result, a message, the arguments of a call. A
      larger value is an error of that call or `snex.send`; the error says how large the value is. The VM holds each of
      these values in memory as a whole
      """
    ]
  ]

  @port_options [
    use_stdio: [
      type: :boolean,
      default: false,
      doc: "communicate over standard input and output, for a Python behind `docker run -i` or `ssh`"
    ],
    busy_limits_port: [
      type: &Checks.busy_limits/1,
      default: {4 * 1024 * 1024, 8 * 1024 * 1024},
      spec: quote(do: {low :: non_neg_integer(), high :: non_neg_integer()} | :disabled),
      doc: """
      the marks `{low, high}`, in bytes, of the queue to Python: when more than `high` bytes wait, callers wait until fewer
      than `low` are left. Or `:disabled`
      """
    ],
    parallelism: [type: :any, default: false, spec: quote(do: boolean()), doc: "accepted, and has no effect"],
    busy_limits_msgq: [type: :any, default: :disabled, doc: "accepted, and has no effect"]
  ]

  @groups [
    {"Python",
     [
       python: [
         type: &Checks.python/1,
         default: nil,
         spec: quote(do: Path.t()),
         doc: """
         path or name of the Python to run; by default the first of `python`, `python3` that is found. As in a shell, a
         name with a slash is a path, and any other name is looked up on `PATH`. A relative path is relative to the
         working directory of the VM, whatever `:cd` says
         """
       ],
       wrap_exec: [
         type: &Checks.wrap_exec/1,
         default: nil,
         spec: quote(do: Interpreter.wrap_exec()),
         doc: """
         `fun(python, args)` or `{module, function, args}` that returns `{executable, args}` to run instead. The
         executable is found like `:python`
         """
       ],
       cd: [type: &Checks.folder/1, default: nil, spec: quote(do: Path.t()), doc: "working directory"],
       environment: [
         type: &Environment.check/1,
         default: %{},
         spec: quote(do: Interpreter.variables() | {:only, Interpreter.variables()}),
         doc: """
         map of environment variables, added to those of the VM. `PYTHONPATH` is extended, not replaced. The value `nil`
         unsets the variable. A function without arguments, or `{module, function, args}`, is called at each start and
         returns the value, so that secrets do not appear in the reports of supervisors. With `{:only, map}`, Python
         gets the variables of the map and none of the VM's, which may hold secrets. In either case, Snex itself adds
         two variables: `PYTHONPATH`, to find its package, and `SNEX_TREE`, to find the processes that Python started.
         If Python belongs to a virtual environment, as a module's Python does, `VIRTUAL_ENV` names it, and `PATH`
         begins with its `bin`
         """
       ],
       python_path: [
         type: &Checks.python_path/1,
         default: [],
         spec: quote(do: Interpreter.python_path() | [Interpreter.python_path()]),
         doc: """
         folders with your own Python code, which are searched before other packages: a path, `{:my_app, "priv/python"}`
         for a folder of an application, or a list of these. Python loads a module once: after a change, restart the
         interpreter, or call `importlib.reload`. Files here and in the working directory never shadow modules that Snex
         itself needs, such as `struct` or `asyncio`
         """
       ]
     ]},
    {"""
     Packages for this interpreter, for scripts and notebooks. uv installs them when the interpreter starts, as
     `use Snex.Interpreter` does when a module is compiled. The environment is kept in the user's cache
     (`XDG_CACHE_HOME`), and made once for each text\
     """, Project.Options.at_run_time()},
    {"Start",
     [
       init_script: [
         type: &Checks.init_script/1,
         default: nil,
         spec: quote(do: Interpreter.init_script()),
         doc: """
         code that runs first; all environments start as copies of the one that it leaves. It is a string, a
         `Snex.Code`, or either of them with a map of variables: `{code, vars}`. It can also be a function without
         arguments, or `{module, function, args}`, that returns one of these: it is called at each start, so that
         secrets do not appear in the reports of supervisors
         """
       ],
       init_script_timeout: [
         type: :timeout,
         default: 60_000,
         doc:
           "for the start and the init script together, in ms. Package installation isn't covered by this timeout"
       ],
       sync_start?: [
         type: :boolean,
         default: true,
         doc: """
         `false` returns at once; if the start fails, the process exits. Calls wait until the interpreter has started.
         Use it under a supervisor for starts that take long, such as those that install packages: a supervisor waits
         for each child to start, and meanwhile starts or stops no other child
         """
       ],
       sync_start: [alias: :sync_start?],
       label: [
         type: :any,
         default: nil,
         doc:
           "label of the process, see `Process.set_label/1`; for a module with `use Snex.Interpreter`, its name by
           default"
       ]
     ]},
    {"""
     Copies. The Python process of a copy is a fork of its template's; see `Snex.Interpreter.fork/2`. A copy has the
     template's Python, working directory and environment variables. It also takes these options from the template
     unless they are given: "Data" (except `:port_opts`), "Output", "Bounds" and `:init_script_timeout`. `:init_script`
     runs in the copy\
     """,
     [
       template: [
         type: &Checks.template/1,
         default: nil,
         spec: quote(do: Interpreter.server()),
         doc: "starts a copy of this interpreter, which must be on the same node"
       ],
       threads: [
         type: {:in, [:refuse, :ignore]},
         default: :refuse,
         doc: """
         with `:refuse`, a template with threads of its own is an error that names them, because threads do not survive
         a fork, and code that waits for such a thread would wait forever. With `:ignore`, the copy is made without them
         """
       ]
     ]},
    {"Data",
     [
       encoding_opts: [
         type: &Checks.encoding/1,
         default: [],
         spec: quote(do: Serde.encoding_opts()),
         doc: "see `t:Snex.Serde.encoding_opts/0`"
       ],
       atoms: [
         type: {:in, [:create, :existing]},
         default: :create,
         doc: "with `:existing`, values from Python may not create atoms"
       ],
       port_opts: [
         type: &__MODULE__.port_options/1,
         default: [],
         spec: quote(do: [:use_stdio | :parallelism | unquote(Options.spec(@port_options))]),
         doc: "how the VM and Python communicate:\n\n" <> Options.documentation(@port_options)
       ],
       shared_memory: [
         type: :boolean,
         default: true,
         doc: """
         whether large values travel through memory that the VM and Python share, where that is faster than a pipe. This
         works only on Linux, and not with `:use_stdio`. If the system refuses such memory, or when it is full, the pipe
         is used. It takes up to 4 GiB in each direction, or a sixteenth of the memory limit
         """
       ],
       eager_polyfill?: [
         type: :boolean,
         default: true,
         doc: "Python's event loop runs ready callbacks before it polls again"
       ]
     ]},
    {"Output",
     [
       output: [
         type: &Output.destination/1,
         default: :group_leader,
         spec: quote(do: Interpreter.output() | [stdout: Interpreter.output(), stderr: Interpreter.output()]),
         doc: """
         where Python's output goes: `:group_leader` (that of the process whose `Snex.pyeval/4` prints; outside of any
         call, the interpreter's), `:inherit` (the VM's own standard output and error), `:logger`, `:discard`, a pid,
         which gets `{:snex_output, interpreter, :stdout | :stderr, binary}`, or `[stdout: ..., stderr: ...]`
         """
       ]
     ]},
    {"Bounds",
     [
       limits: [
         type: &__MODULE__.limits/1,
         default: [],
         spec: quote(do: [unquote(Options.spec(@limits))]),
         doc:
           "limits for each process of the Python tree, and for the values that it sends:\n\n" <>
             Options.documentation(@limits)
       ],
       on_memory_limit: [
         type: {:in, [:restart, :keep]},
         default: :restart,
         doc: """
         what to do after a call has failed with `MemoryError` under a memory limit. Little works in such a Python from
         then on. `:restart` ends Python once the call is answered, and exits with the reason `:memory_limit`, so that a
         supervisor starts another; `:keep` keeps it. PyPy raises `MemoryError` only for large objects: if there is no
         memory for a small one, PyPy aborts, and the interpreter exits with status 134
         """
       ],
       allow: [
         type: &Checks.allow/1,
         default: :all,
         spec: quote(do: :all | :none | [module() | {module(), atom()} | {module(), atom(), arity()}]),
         doc: """
         which Elixir functions Python may call: `:all`, `:none`, or a list of `Module`, `{Module, fun}` and
         `{Module, fun, arity}`
         """
       ],
       allow_send: [
         type: &Sends.check/1,
         default: :all,
         spec: quote(do: :all | :none | [pid() | GenServer.name() | {atom(), node()}]),
         doc: """
         which processes `snex.send` may send to: `:all`, `:none`, or a list of pids and of process names (`name`,
         `{name, node}`, `{:global, name}`, `{:via, module, name}`). A message to any other process is dropped, with a
         warning in the log
         """
       ],
       max_in_flight: [
         type: &Checks.max_in_flight/1,
         default: :infinity,
         spec: quote(do: pos_integer() | :infinity),
         doc: """
         how many requests there may be at a time, including those that wait. Any further call returns the code
         `:overloaded` at once; see "Overload"
         """
       ],
       on_stuck: [
         type: &Checks.on_stuck/1,
         default: {:restart, 30_000},
         spec: quote(do: :report | :restart | {:restart, milliseconds :: non_neg_integer()}),
         doc: """
         what to do when a cancelled request does not return although it was interrupted, and so holds up all others.
         About 3 seconds after `:cleanup_timeout` it counts as stuck, and this is logged. `:report` does nothing more.
         `{:restart, ms}` ends Python if the request is still stuck after that time, and exits, so that a supervisor
         starts another; `:restart` does so at once
         """
       ],
       cleanup_timeout: [
         type: :milliseconds,
         default: 5_000,
         doc: """
         how long a cancelled request's `finally` blocks may block, in ms, before the request is interrupted again
         """
       ],
       stop_timeout: [
         type: :milliseconds,
         default: 5_000,
         doc: """
         grace period between SIGTERM and SIGKILL in ms, for Python and all processes that it has started. If Python
         ends by itself, the processes that it leaves behind have half a second. If the VM is killed, the grace period
         is at most half a second
         """
       ]
     ]},
    {"`GenServer`",
     [
       name: [
         type: :any,
         spec: quote(do: GenServer.name()),
         doc: "a name to register, see `t:GenServer.name/0`"
       ],
       timeout: [type: :timeout, doc: "see `GenServer.start_link/3`; prefer `:init_script_timeout`"],
       hibernate_after: [type: :timeout, doc: "see `GenServer.start_link/3`"],
       debug: [type: :any, spec: quote(do: GenServer.debug()), doc: "see `GenServer.start_link/3`"],
       spawn_opt: [type: :any, spec: quote(do: [Process.spawn_opt()]), doc: "see `GenServer.start_link/3`"]
     ]}
  ]

  @table Enum.flat_map(@groups, &elem(&1, 1))
  @server_options [:name, :timeout, :debug, :spawn_opt, :hibernate_after]
  # Of a project that is made at run time. They come to the interpreter as its Python.
  @project_options Keyword.keys(Project.Options.at_run_time())

  @type t() :: %{required(atom()) => term()}

  @doc """
  All options of `start_link/1`.
  """
  @spec table() :: Options.table()
  def table, do: @table

  @doc """
  The names of those that make the Python environment at run time.
  """
  @spec project_options() :: [atom()]
  def project_options, do: @project_options

  @doc """
  All options, for documentation.
  """
  @spec documentation() :: String.t()
  def documentation do
    Enum.map_join(@groups, "\n\n", fn {heading, table} ->
      "#{heading}:\n\n" <> Options.documentation(table)
    end)
  end

  @doc """
  One option of those given, checked, or its default.
  """
  @spec get!(keyword(), atom()) :: term()
  def get!(opts, name), do: Options.value!(name, Keyword.get(opts, name, @table[name][:default]), @table)

  @doc """
  Splits options into those of `GenServer.start_link/3` and those of an interpreter, as a map. Raises `ArgumentError` for one
  that is neither, or has a value that it cannot have.
  """
  @spec split!(keyword()) :: {keyword(), t()}
  def split!(opts) do
    {server, own} = opts |> Options.check!(@table) |> Map.split(@server_options)
    {_project, own} = Map.split(own, @project_options)

    own =
      case Keyword.take(opts, @project_options) do
        [] -> own
        project -> %{own | python: project!(own, project)}
      end

    {Map.to_list(server), own}
  end

  defp project!(own, options) do
    {toml, options} = Keyword.pop(options, :pyproject_toml)

    cond do
      toml == nil ->
        raise ArgumentError,
              "the options #{inspect(Keyword.keys(options))} need the option :pyproject_toml, which is missing"

      own.python != nil ->
        raise ArgumentError, "the options :python and :pyproject_toml cannot be combined"

      true ->
        with {:error, problems} <- Project.Check.check({:toml, toml}) do
          raise ArgumentError,
                "the option :pyproject_toml has mistakes:\n\n" <> Project.Check.describe(problems)
        end

        Project.at_run_time(toml, options)
    end
  end

  @doc false
  @spec port_options(term()) :: {:ok, map()} | {:error, String.t()}
  def port_options(value) when is_list(value) do
    {:ok,
     value
     |> Enum.map(&if(is_atom(&1), do: {&1, true}, else: &1))
     |> Options.check!(@port_options, :port_opts)}
  end

  def port_options(value), do: Options.refuse(value, "a keyword list")

  @doc false
  @spec limits(term()) :: {:ok, tuple()} | {:error, String.t()}
  def limits(value) do
    value = if is_map(value) and not is_struct(value), do: Map.to_list(value), else: value
    limits = Options.check!(value, @limits, :limits)
    {:ok, {limits.memory, limits.cpu, limits.open_files, limits.nice, limits.reply}}
  end
end
