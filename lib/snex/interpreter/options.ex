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
      doc: "niceness, from -20 to 19; below that of the VM only with the privilege for it"
    ],
    # Every answer that carries nothing fits.
    reply: [
      type: {:integer, 64..@most_bytes},
      default: 2 * 1024 * 1024 * 1024,
      doc: """
      bytes of a value that Python sends, encoded: a result, a message, the arguments of a call. A larger one is an error of
      that call or `snex.send`, which says how large the value is. The VM holds each of them in memory as a whole
      """
    ]
  ]

  @port_options [
    use_stdio: [
      type: :boolean,
      default: false,
      doc: "talk over standard input and output, for a Python behind `docker run -i` or `ssh`"
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
         path or name of the Python to run; by default the first of `python`, `python3` that is found. As in a shell, a name
         with a slash is a path, and any other is looked up on `PATH`. A relative path starts from the working directory of the
         VM, whatever `:cd` says
         """
       ],
       wrap_exec: [
         type: &Checks.wrap_exec/1,
         default: nil,
         spec: quote(do: Interpreter.wrap_exec()),
         doc: """
         `fun(python, args)` or `{module, function, args}`, returns `{executable, args}` to run instead. The executable is
         found like `:python`
         """
       ],
       cd: [type: &Checks.folder/1, default: nil, spec: quote(do: Path.t()), doc: "working directory"],
       environment: [
         type: &Environment.check/1,
         default: %{},
         spec: quote(do: Interpreter.variables() | {:only, Interpreter.variables()}),
         doc: """
         map of environment variables, added to those of the VM. `PYTHONPATH` is extended, not replaced. A value that is `nil`
         unsets the variable. A value that is a function without arguments, or `{module, function, args}`, is called at each
         start and returns the value, so that a secret stays out of what supervisors report. With `{:only, map}` Python gets the
         variables of the map and none of the VM's, which may hold secrets. Snex itself adds two in either case: `PYTHONPATH`,
         to find its package, and `SNEX_TREE`, by which it finds what Python started. If Python belongs to a virtual
         environment, as that of a module does, `VIRTUAL_ENV` names it, and `PATH` begins with its `bin`
         """
       ],
       python_path: [
         type: &Checks.python_path/1,
         default: [],
         spec: quote(do: Interpreter.python_path() | [Interpreter.python_path()]),
         doc: """
         folders with Python code of your own, which are searched before other packages: a path, `{:my_app, "priv/python"}` for
         a folder of an application, or a list. Python loads a module once: after a change, restart the interpreter, or
         call `importlib.reload`. Files here and in the working directory never take the place of modules that Snex itself
         needs, such as `struct` or `asyncio`
         """
       ]
     ]},
    {"""
     Packages for this interpreter, installed by uv when it starts, as `use Snex.Interpreter` does when a module is compiled; for
     scripts and notebooks. The environment is kept in the user's cache (`XDG_CACHE_HOME`), and made once for each text\
     """, Project.Options.at_run_time()},
    {"Start",
     [
       init_script: [
         type: &Checks.init_script/1,
         default: nil,
         spec: quote(do: Interpreter.init_script()),
         doc: """
         code that runs first; all environments start as copies of the one that it leaves. A string, a `Snex.Code`, or either
         with a map of variables: `{code, vars}`. Or a function without arguments, or `{module, function, args}`, that returns one
         of these: it is called at each start, so that a secret stays out of what supervisors report
         """
       ],
       init_script_timeout: [
         type: :timeout,
         default: 60_000,
         doc: "for start and init script together, in ms. Package installation isn't covered by this timeout"
       ],
       sync_start?: [
         type: :boolean,
         default: true,
         doc: """
         `false` returns at once, and a start that fails makes the process exit. Calls wait until the interpreter has started.
         Use it below a supervisor for starts that take long, such as those that install packages: a supervisor waits for each
         child to start, and starts or stops no other meanwhile
         """
       ],
       sync_start: [alias: :sync_start?],
       label: [
         type: :any,
         default: nil,
         doc:
           "label of the process, see `Process.set_label/1`; for a module that uses this one, its name by default"
       ]
     ]},
    {"""
     Copies. The Python of a copy is a fork of its template's: see `Snex.Interpreter.fork/2`. It has the template's Python,
     working directory and variables, and those of the following options of the template that are not given: "Data" (apart from
     `:port_opts`), "Output", "Bounds", and `:init_script_timeout`. `:init_script` runs in the copy\
     """,
     [
       template: [
         type: &Checks.template/1,
         default: nil,
         spec: quote(do: Interpreter.server()),
         doc: "start a copy of this interpreter, which is on the same node"
       ],
       threads: [
         type: {:in, [:refuse, :ignore]},
         default: :refuse,
         doc: """
         with `:refuse`, a template with threads of its own is an error that names them, because threads do not survive a fork,
         and code that waits for one of them would wait for ever. With `:ignore` the copy is made without them
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
         doc: "how the VM and Python talk:\n\n" <> Options.documentation(@port_options)
       ],
       shared_memory: [
         type: :boolean,
         default: true,
         doc: """
         whether large values travel through memory that the VM and Python share where that is faster than a pipe. This works
         on Linux only, and not with `:use_stdio`. Where the system refuses it, and when it is full, the pipe is used.
         It takes up to 4 GiB in each direction, or a sixteenth of the limit of memory
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
         where what Python prints goes: `:group_leader` (that of the process whose `Snex.pyeval/4` prints; outside of any
         call, the interpreter's), `:inherit` (the VM's own standard output and error), `:logger`, `:discard`, a pid, which
         gets `{:snex_output, interpreter, :stdout | :stderr, binary}`, or `[stdout: ..., stderr: ...]`
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
           "for each process of the Python tree, and for what it sends:\n\n" <> Options.documentation(@limits)
       ],
       on_memory_limit: [
         type: {:in, [:restart, :keep]},
         default: :restart,
         doc: """
         what to do after a call has failed with `MemoryError` under a limit of memory. Little works from then on in such a
         Python. `:restart` ends it once the call is answered, and exits with the reason `:memory_limit`, so that a supervisor
         starts another; `:keep` keeps it. PyPy raises `MemoryError` for large objects only: when there is no memory for a small
         one it aborts, and the interpreter exits with the status 134
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
         to whom `snex.send` may send: `:all`, `:none`, or a list of pids and of names of processes (`name`, `{name, node}`,
         `{:global, name}`, `{:via, module, name}`). A message to anyone else is dropped, with a warning in the log
         """
       ],
       max_in_flight: [
         type: &Checks.max_in_flight/1,
         default: :infinity,
         spec: quote(do: pos_integer() | :infinity),
         doc: """
         how many requests there may be at a time, waiting ones included. Beyond it, a call returns at once with the code
         `:overloaded`; see "Overload"
         """
       ],
       on_stuck: [
         type: &Checks.on_stuck/1,
         default: {:restart, 30_000},
         spec: quote(do: :report | :restart | {:restart, milliseconds :: non_neg_integer()}),
         doc: """
         what to do when a cancelled request does not come back, although it was interrupted, and holds up all others. It
         counts as stuck about 3 seconds after `:cleanup_timeout`, and is logged then. `:report` does no more. `{:restart, ms}` ends Python if the
         request is still stuck after that time, and exits, so that a supervisor starts another; `:restart` does so at once
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
         grace between SIGTERM and SIGKILL in ms, for Python and all that it has started. What a Python leaves behind that ends
         by itself has half a second. When the VM is killed, and nobody is left to ask for it, the grace is at most
         half a second
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
       timeout: [type: :timeout, doc: "for `GenServer.start_link/3`; better use `:init_script_timeout`"],
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
              "#{inspect(Keyword.keys(options))} go with the option :pyproject_toml, which is missing"

      own.python != nil ->
        raise ArgumentError, "of the options :python and :pyproject_toml there can be one"

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
