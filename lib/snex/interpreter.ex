defmodule Snex.Interpreter do
  @moduledoc """
  A Python interpreter in its own operating system process, owned by a BEAM process.

      {:ok, interpreter} = Snex.Interpreter.start_link(python: "python3")
      {:ok, 42} = Snex.pyeval(interpreter, "return 6 * 7")

  In an application, define a module that names its Python and packages, and put it under a supervisor:

      defmodule MyApp.Numpy do
        use Snex.Interpreter,
          name: __MODULE__,
          init_script: "import numpy as np",
          pyproject_toml: \"""
          [project]
          name = "my-app"
          version = "0.0.0"
          requires-python = ">=3.10"
          dependencies = ["numpy>=2"]
          \"""
      end

      children = [MyApp.Numpy]

  If the module gives no `:name`, start it as `{MyApp.Numpy, name: MyApp.Numpy}` to call it by name.

  ## `use Snex.Interpreter`

  Exactly one of the first two is required:

  #{Snex.Options.documentation(Keyword.delete(Snex.Project.Options.table(), :python_path))}

  Every option of `start_link/1` can be given here as a default, as well as `:restart` for `child_spec/1`. The values
  are evaluated each time an interpreter starts. Options of `start_link/1` override them:

      use Snex.Interpreter,
        name: __MODULE__,
        init_script: "import numpy as np",
        environment: %{"API_KEY" => System.fetch_env!("API_KEY")},
        project_path: "python"

  A mistake in the TOML is a compile error with file, line and column. uv runs when the module is compiled, and then
  only when something has changed. The module gets `start_link/1`, `child_spec/1`, `os_pid/1`, `info/1` and `stop/3`;
  `start_link/1` and `child_spec/1` can be overridden.

  Python and the packages are installed below `_build/$MIX_ENV/snex`. Add the compiler `:snex` in `mix.exs`: it restores
  the environments of dependencies when they are missing, and makes `mix clean` remove all environments; see
  `Mix.Tasks.Compile.Snex`.

  ### Locks

  A lock file has the exact versions of all packages. A folder's `uv.lock` is used as it is and never written to. For a
  project in the module, uv chooses the versions once on each machine; with `:lock`, it writes them to the given file,
  so that you can commit it. Each module needs a file of its own. `mix snex.uv Module -- lock --upgrade` makes uv choose
  newer versions.

  When the `pyproject.toml` changes, its lock file is out of date, and uv changes it as little as possible. A file named
  by `:lock` is changed in place. A folder's `uv.lock` is changed in a copy in the build folder, with a warning. With
  `locked: true`, or if the environment variable `CI` or `SNEX_LOCKED` is `true`, an outdated lock file is a compile
  error instead. `SNEX_LOCKED=false` overrides the other two.

  ### Packages in folders

  A dependency may be a folder of yours:

      dependencies = ["my-package"]

      [tool.uv.sources]
      my-package = { path = "python/my_package", editable = true }

  In `:pyproject_toml`, a relative path is relative to the folder of the Mix project (in a script, to the working
  directory); in a project folder, it is relative to that folder. A `:project_path` may be a member of a uv workspace;
  then the settings and the `uv.lock` of the workspace's root are used. uv writes to none of these folders, but a build
  backend may: setuptools leaves an `*.egg-info`.

  Python reads editable packages and workspace members from their folders: restart the interpreter after an edit. All
  other packages are built when the environment is made, and later edits of their code have no effect. If a package's
  `pyproject.toml` changes, the environment is made again.

  With `:project_path`, the dependencies of the project are installed, but not the project itself. With
  `install_project: true`, the project is also installed, as an editable package, and Python can import it. Its
  `pyproject.toml` needs a `[build-system]` table.

  A release contains all these packages in the state in which they are when the release is made; see `Snex.Release`.

  ## Overload

  Calls whose code does not await run one after the other. If calls arrive faster than they are answered, they wait. In
  a plain queue, each call would then start just before its caller gives up, and be interrupted. So before Python starts
  such code, it compares the time that the caller will still wait with the time that the same code has recently taken.
  If too little time is left, the call returns `{:error, %Snex.Error{code: :overloaded}}`, and the next call runs
  instead. Code that awaits is never refused for this reason. Neither are calls with `timeout: :infinity` or
  `on_timeout: :leave`, nor calls of an interpreter with `:use_stdio`, where Python's clock may be a different one.

  To fail at once instead of waiting, set `:max_in_flight` to the number of calls that can be answered within a timeout.
  After `:overloaded`, pause before you retry, or don't retry at all.

  ## What happens to the process

  The interpreter process owns a *warden*, a small program that starts Python and outlives it. When the interpreter
  process or the whole VM ends, for whatever reason, the warden ends Python and everything that Python started: first
  with SIGTERM and, after a grace period, with SIGKILL. When Python ends by itself, the interpreter process exits with a
  `Snex.Error` of code `:interpreter_exited`, and its supervisor decides what happens next.

  Snex's modules can be reloaded while interpreters run, as in a hot upgrade; the interpreter processes go on. As always
  in Erlang, a process that still runs old code is killed when the module is reloaded for a second time. The module that
  holds the native code can't be reloaded.
  """

  alias Snex.Interpreter.Copy
  alias Snex.Interpreter.Options
  alias Snex.Interpreter.Starter
  alias Snex.Remote

  @typedoc "An interpreter process: a pid or anything else that names a `GenServer`."
  @type server() :: GenServer.server()

  @typedoc "Environment variables. `nil` unsets a variable; a function is called at each start."
  @type variables() :: %{
          optional(String.t()) => String.t() | nil | (-> String.t() | nil) | {module(), atom(), [term()]}
        }

  @typedoc "The option `:environment`."
  @type environment() :: variables() | {:only, variables()}

  @typedoc "The option `:port_opts`."
  @type port_opts() :: unquote(Options.table()[:port_opts][:spec])

  @typedoc "Returns the executable and arguments to run, for the path of a Python and its arguments."
  @type wrap_exec() ::
          (python :: String.t(), args :: [String.t()] -> {String.t(), [String.t()]})
          | {module(), atom(), [term()]}

  @typedoc "A folder with Python code, or such a folder of an application."
  @type python_path() :: Path.t() | {app :: atom(), Path.t()}

  @typedoc "Code that runs first, optionally with variables, or a function that returns it."
  @type init_script() ::
          String.t()
          | Snex.Code.t()
          | {String.t() | Snex.Code.t(), %{optional(String.t()) => term()}}
          | (-> init_script())
          | {module(), atom(), [term()]}

  @type option() :: unquote(Snex.Options.spec(Options.table()))

  @typedoc "Where Python's output goes; see `start_link/1`."
  @type output() :: :group_leader | :inherit | :logger | :discard | pid()

  @doc false
  defmacro __using__(opts), do: Snex.Interpreter.Definition.define(opts)

  @doc """
  Starts an interpreter linked to the caller.

  Returns when Python has started and the init script has run. If anything goes wrong, it returns
  `{:error, %Snex.Error{}}`; the caller is then no longer linked to the interpreter, so it can handle the error even if
  it doesn't trap exits.

  During the start, the interpreter already answers `os_pid/1`, `info/2` and `stop/3`. It ends if its parent does.

  #{Options.documentation()}

  Raises `ArgumentError` for an unknown option and for an invalid value.

      iex> init_script = {"y = 2 * x", %{"x" => 21}}
      iex> {:ok, interpreter} = Snex.Interpreter.start_link(init_script: init_script)
      iex> Snex.pyeval(interpreter, "return y")
      {:ok, 42}
  """
  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(opts \\ []) do
    {server_opts, options} = Options.split!(opts)

    with {:ok, options} <- Copy.options(options, opts),
         do: Starter.start_link(options, server_opts)
  end

  @doc """
  Starts a copy of an interpreter, its *template*, linked to the caller.

  The copy is an interpreter like any other, with its own Python process, which is a fork of the template's. It starts
  within milliseconds, with the template's root environment, imports and context, and shares the template's memory until
  one of them writes to it. Its calls, limits and output are its own, and if one of the two stops or crashes, the other
  goes on. The copy does not have the template's environments, objects and tasks.

  `opts` are the options of `start_link/1`, as described there under "Copies". In particular, `:init_script` runs in the
  copy, and `threads: :ignore` makes a copy even though the template has threads. `start_link(template: interpreter)`
  does the same, for a supervisor.

  Returns `{:error, %Snex.Error{code: :call_failed}}`, with the reason as text, if

    * the template has calls in progress, or threads of its own, which the text names;
    * it is a copy itself, is on another node, uses `:use_stdio`, or was started by another program (`:wrap_exec`);
    * it is gone, or the system has no room for another process;
    * the system is not Linux.

  Raises `ArgumentError` for an option that a copy takes from its template.

      iex> {:ok, template} = Snex.Interpreter.start_link(init_script: "x = [1, 2]")
      iex> {:ok, copy} = Snex.Interpreter.fork(template)
      iex> Snex.pyeval(copy, "x.append(3); return x")
      {:ok, [1, 2, 3]}
      iex> Snex.pyeval(template, "return x")
      {:ok, [1, 2]}
  """
  @spec fork(server(), [option()]) :: GenServer.on_start()
  def fork(interpreter, opts \\ []) do
    if interpreter == nil, do: raise(ArgumentError, "expected an interpreter to fork, got: nil")
    start_link([{:template, interpreter} | Snex.Options.keyword!(opts)])
  end

  @doc """
  Returns a specification to start an interpreter under a supervisor.

  Its id is the `:name` given, or this module.

      iex> Snex.Interpreter.child_spec(name: MyApp.Python).id
      MyApp.Python
  """
  @spec child_spec([option()]) :: Supervisor.child_spec()
  def child_spec(opts) do
    %{
      id: Keyword.get(opts, :name, __MODULE__),
      start: {__MODULE__, :start_link, [opts]},
      shutdown: shutdown(opts)
    }
  end

  # Python gets its whole grace before the supervisor loses patience. How long that is, a template may know.
  defp shutdown(opts) do
    if opts[:template] && !Keyword.has_key?(opts, :stop_timeout),
      do: :infinity,
      else: min(Options.get!(opts, :stop_timeout) + 1_000, 0xFFFF_FFFF)
  end

  @doc """
  Returns Python's process id in the operating system, or `nil` until Python runs, for instance while packages are being
  installed.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, pid} = Snex.pyeval(interpreter, "import os; return os.getpid()")
      iex> Snex.Interpreter.os_pid(interpreter) == pid
      true
  """
  @spec os_pid(server()) :: non_neg_integer() | nil
  def os_pid(interpreter), do: call(interpreter, :os_pid, 5_000)

  @doc """
  Returns the state of an interpreter, as a map.

    * `:status`: `:installing` packages, `:starting` (Python, and then the init script), or `:running`
    * `:python` (such as `"3.13.0"`), `:implementation` (`"CPython"`, `"PyPy"`), `:executable`, `:version` (of the Python
      package `snex`), `:encoder` (`"pure"`, `"native"`), `:os_pid`
    * `:template`: the interpreter that it is a copy of, or `nil`
    * `:uptime` in ms, `:requests_served`, `:requests_in_flight`, `:environments` (how many exist), `:objects` (how many
      have a `Snex.Object`)
    * `:queued`: bytes that wait for Python to read them
    * `:memory`: resident memory of Python and all processes that it started, in bytes (0 if the system does not report
      it)
    * `:shared_memory`: how many bytes of the memory shared with Python its values still use, or `nil` without such
      memory; see the option `:shared_memory`

  Until Python runs, values that only Python knows are `nil`. Answers at once, even during the start. Exits like
  `GenServer.call/3` if there is no answer within `timeout`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> info = Snex.Interpreter.info(interpreter)
      iex> {info.environments, info.requests_in_flight, info.memory > 0}
      {1, 0, true}
      iex> Snex.destroy_env(env)
      iex> Snex.Interpreter.info(interpreter).environments
      0
  """
  @spec info(server(), timeout()) :: map()
  def info(interpreter, timeout \\ 5_000), do: call(interpreter, :info, timeout)

  @doc """
  Stops an interpreter, and returns when Python and everything it started are gone.

  Also returns `:ok` if the interpreter isn't running, or ends by itself meanwhile. An interpreter that is still
  starting or installing packages is stopped as well; its `start_link/1` then returns an error. Calls in progress return
  `{:error, %Snex.Error{code: :call_failed, reason: reason}}`.

  Exits if the interpreter isn't gone within `timeout`, or if its node cannot be reached.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.Interpreter.stop(interpreter)
      :ok
      iex> Snex.Interpreter.stop(interpreter)
      :ok
  """
  @spec stop(server(), term(), timeout()) :: :ok
  def stop(interpreter, reason \\ :normal, timeout \\ :infinity) do
    case Remote.locate(interpreter) do
      nil -> :ok
      server -> GenServer.stop(server, reason, timeout)
    end
  catch
    :exit, {why, _call} = reason when why in [:timeout, :calling_self] -> exit(reason)
    :exit, {{:nodedown, _node}, _call} = reason -> exit(reason)
    # It had ended before, or did so for another reason.
    :exit, _reason -> :ok
  end

  defp call(interpreter, request, timeout) do
    case Remote.locate(interpreter) do
      nil -> exit({:noproc, {GenServer, :call, [interpreter, request, timeout]}})
      server -> GenServer.call(server, request, timeout)
    end
  end
end
