defmodule Snex.Interpreter.Launch do
  @moduledoc false
  # Starts a Python from options, and runs its init script. In a process of its own, so that the interpreter process can be
  # stopped meanwhile. The interpreter process owns the worker, and passes its messages on to this one.

  alias Snex.Error
  alias Snex.Interpreter.Down
  alias Snex.Interpreter.Environment
  alias Snex.Interpreter.Options.Checks
  alias Snex.Native
  alias Snex.Os
  alias Snex.Project
  alias Snex.Request
  alias Snex.Serde
  alias Snex.Serde.Decoder
  alias Snex.Serde.Layout

  @version Mix.Project.config()[:version]

  # Where a program without PATH looks; it is no longer without one.
  @default_path "/bin:/usr/bin"

  # How long what installs packages may take to end, in ms; a warden takes half a second of grace.
  @stop_time 5_000

  @typedoc "How a start ends."
  @type result() :: {:ok, fields :: map()} | {:error, Error.t()}

  @doc """
  Begins to start the worker of the calling process, from a process that is linked to it. That one sends
  `{:snex_status, pid, status}` as it goes on and `{:snex_launched, pid, result}` at last, and wants each
  `{:snex_started | :snex_ready | :snex_ended, _}` that comes until then.
  """
  @spec start_link(Snex.Interpreter.Options.t(), pid(), pid()) :: pid()
  def start_link(options, calls, output) do
    owner = self()

    spawn_link(fn ->
      Process.set_label({__MODULE__, owner})
      send(owner, {:snex_launched, self(), try_to_launch(owner, options, calls, output)})
    end)
  end

  @doc """
  Ends a start. Returns when its process is gone, and with it what was installing packages: afterwards nobody starts a worker
  any more.
  """
  @spec stop(pid()) :: :ok
  def stop(launch) do
    monitor = Process.monitor(launch)
    Process.exit(launch, :shutdown)

    receive do
      {:DOWN, ^monitor, :process, ^launch, _reason} -> :ok
    after
      @stop_time ->
        # It does not hear: a function in `:wrap_exec` may trap exits.
        Process.exit(launch, :kill)

        receive do
          {:DOWN, ^monitor, :process, ^launch, _reason} -> :ok
        end
    end
  end

  # Whatever goes wrong, as on a full disk, is why the start has failed.
  defp try_to_launch(owner, options, calls, output) do
    launch(owner, options, calls, output)
  catch
    kind, reason ->
      stacktrace = Environment.without_arguments(__STACKTRACE__)
      failed("the start failed: " <> Exception.format(kind, reason, stacktrace))
  end

  defp launch(owner, options, calls, output) do
    with {:ok, native} <- native_options(owner, options, calls, output),
         :ok <- await_template(options),
         # The timeout does not cover the installation of packages.
         deadline = Request.deadline(options.init_script_timeout),
         :ok <- start_worker(native),
         {:ok, _os_pid} <- await_worker(:snex_started, deadline),
         # The worker says that Python has started before it says anything else.
         {:ok, fields} <- await_worker(:snex_ready, deadline),
         :ok <- run_init_script(owner, options.init_script, deadline) do
      {:ok, Map.new(fields)}
    else
      {:error, %Error{code: :init_script_timeout, details: details} = error} ->
        about = Map.merge(details, %{timeout: options.init_script_timeout, option: :init_script_timeout})
        {:error, %{error | details: about}}

      {:error, error} ->
        {:error, error}
    end
  end

  defp start_worker(native) do
    with {:error, reason} <- Native.interpreter_start(native), do: failed(reason)
  rescue
    # Without the stack trace, which has the variables in it.
    error -> failed("the worker cannot be started: " <> Exception.message(error))
  end

  # One that has been started with `sync_start?: false` may still run its init script.
  defp await_template(%{template: nil}), do: :ok

  defp await_template(%{template: template, init_script_timeout: timeout}) do
    GenServer.call(template, :await_start, timeout)
  catch
    :exit, {:timeout, _call} -> {:error, %Error{code: :init_script_timeout}}
    :exit, _reason -> failed("the template has ended")
  end

  defp native_options(owner, options, calls, output) do
    with {:ok, executed} <- executed_options(options, owner) do
      {low, high} = options.port_opts.busy_limits_port

      {:ok,
       Map.merge(executed, %{
         warden: Os.app_dir(:snex, "priv/native/snex_warden"),
         use_stdio: options.port_opts.use_stdio,
         template: options.template,
         ignore_threads: options.threads == :ignore,
         version: @version,
         eager: options.eager_polyfill?,
         low: low,
         high: high,
         max_in_flight: if(options.max_in_flight != :infinity, do: options.max_in_flight),
         cleanup_timeout: options.cleanup_timeout,
         end_on_memory_error: elem(options.limits, 0) != nil and options.on_memory_limit == :restart,
         map_set: Layout.map_set(),
         object: Decoder.place_layout(),
         structs: Layout.structs(),
         owner: owner,
         calls: calls,
         output: output,
         output_to: :erlang.term_to_binary(options.output),
         encoding: options.encoding_opts,
         create_atoms: options.atoms == :create,
         allow: options.allow,
         limits: options.limits,
         shared_memory: shared_memory(options)
       })}
    end
  end

  # Bytes of addresses in each direction; memory is taken for what is in use alone. Under a limit of memory, which does not count
  # it, there is little of it.
  defp shared_memory(%{shared_memory: false}), do: nil

  defp shared_memory(%{limits: limits}) do
    case elem(limits, 0) do
      nil -> 4 * 1024 * 1024 * 1024
      memory -> div(memory, 16)
    end
  end

  # What is executed, and where. A copy is what its template is.
  defp executed_options(%{template: nil} = options, owner) do
    with :ok <- installation(),
         {:ok, python} <- find_python(options.python, owner),
         {:ok, python_path} <- python_path(options.python_path),
         {:ok, env} <- environment(options.environment, python, python_path),
         :ok <- folder(options.cd),
         {:ok, {program, args}} <- command(python, options) do
      {:ok, %{program: program, args: args, env: env, cwd: options.cd}}
    end
  end

  defp executed_options(_options, _owner), do: {:ok, %{program: "", args: [], env: [], cwd: nil}}

  # Of a module: made when it was compiled.
  defp find_python(%Project{module: module} = project, _owner) when module != nil,
    do: {:ok, Project.python!(project)}

  defp find_python(%Project{} = project, owner) do
    send(owner, {:snex_status, self(), :installing})
    result = Project.install(project)
    send(owner, {:snex_status, self(), :starting})

    case result do
      :ok -> {:ok, Project.python!(project)}
      {:error, message} -> failed("the Python environment could not be made: " <> message)
    end
  end

  defp find_python(nil, _owner) do
    case Enum.find_value(["python", "python3"], &Os.find_executable/1) do
      nil -> failed("neither python nor python3 is on PATH; set the option :python")
      path -> {:ok, path}
    end
  end

  defp find_python(name, _owner) do
    case Os.find_executable(name) do
      nil -> failed("no executable Python at #{inspect(name)}#{searched(name)}")
      path -> {:ok, path}
    end
  end

  # Where it was looked for, if the name does not say so itself.
  defp searched(name) do
    cond do
      not String.contains?(name, "/") -> ": no folder of PATH has a program of this name"
      Path.type(name) != :absolute -> ": there is none at #{inspect(Path.expand(name))}"
      true -> ""
    end
  end

  # Started by its path, Python does not look for the package in the working directory first. Behind `docker run` or `ssh`,
  # which need standard input and output, the path may be another one.
  defp arguments(%{port_opts: %{use_stdio: true}, wrap_exec: wrap}) when wrap != nil,
    do: ["-m", "snex", "0", "1"]

  defp arguments(%{port_opts: %{use_stdio: stdio?}}) do
    start = Os.app_dir(:snex, "priv/python/snex/__main__.py")
    [start | if(stdio?, do: ["0", "1"], else: ["3", "4", "5", "6"])]
  end

  defp command(python, options) do
    args = arguments(options)

    wrapped =
      case options.wrap_exec do
        nil -> fn -> {python, args} end
        {m, f, a} -> {m, f, a ++ [python, args]}
        fun -> fn -> fun.(python, args) end
      end

    with {:ok, returned} <- Environment.call(wrapped, "the function in :wrap_exec"),
         {:ok, {program, args}} <- executed(returned) do
      case Os.find_executable(program) do
        nil -> failed("no executable at #{inspect(program)}, which :wrap_exec returned#{searched(program)}")
        path -> {:ok, {path, args}}
      end
    else
      {:error, %Error{}} = error -> error
      {:error, complaint} -> failed(complaint)
    end
  end

  defp executed({program, args} = returned) when is_list(args) do
    if Enum.all?([program | args], &(is_binary(&1) and not String.contains?(&1, "\0"))),
      do: {:ok, returned},
      else: executed(nil)
  end

  # What it returned may hold secrets.
  defp executed(_other),
    do: failed("the function in :wrap_exec did not return {executable, args}, as strings without NUL")

  # Otherwise the system blames the program that cannot be started there.
  defp folder(nil), do: :ok

  defp folder(path),
    do: if(File.dir?(path), do: :ok, else: failed("no folder at #{inspect(path)}, which is the option :cd"))

  @doc """
  The variable `PYTHONPATH`: the package, which nothing may hide, then `folders`, then what it is without us.
  """
  @spec pythonpath([Path.t()], String.t() | nil) :: String.t()
  def pythonpath(folders, others \\ Os.get_env("PYTHONPATH")) do
    # An empty variable counts as none. An empty entry would be the working directory.
    others = if others in [nil, ""], do: [], else: [others]
    Enum.join([Os.app_dir(:snex, "priv/python") | folders] ++ others, ":")
  end

  # Checked once for all: the folder of the package itself.
  defp installation do
    folder = Os.app_dir(:snex, "priv/python")

    cond do
      File.dir?(folder) and not String.contains?(folder, ":") ->
        :ok

      File.dir?(folder) ->
        failed("#{folder} has a colon in its path, which PYTHONPATH cannot hold: move the project or release")

      Os.in_escript?() ->
        failed(Os.escript())

      true ->
        failed("there is no folder #{folder}: `mix deps.compile snex --force` creates it")
    end
  end

  defp python_path(folders) do
    case Enum.reject(folders, &File.dir?/1) do
      [] -> {:ok, folders}
      [missing | _] -> failed("no folder at #{inspect(missing)}, which is in :python_path")
    end
  end

  defp environment(option, python, python_path) do
    case Environment.resolve(option, Map.new(Os.env())) do
      {:ok, given, all} -> {:ok, with_paths(given, all, python, python_path)}
      {:error, complaint} -> failed(complaint)
    end
  end

  defp with_paths(given, all, python, python_path) do
    all
    |> Map.put("PYTHONPATH", pythonpath(python_path, all["PYTHONPATH"]))
    |> Map.merge(activation(python, given["VIRTUAL_ENV"], all["PATH"]))
    |> Map.to_list()
  end

  @doc """
  The variables by which programs that Python starts find this Python, and the scripts of its packages, if it belongs to a
  virtual environment: those of a shell in which it is active. `given` is the user's own `VIRTUAL_ENV`.
  """
  @spec activation(Path.t(), String.t() | nil, String.t() | nil) :: %{String.t() => String.t()}
  def activation(python, given \\ nil, path \\ Os.get_env("PATH")) do
    case Project.Venv.of(python) do
      nil -> %{}
      venv -> %{"VIRTUAL_ENV" => given || venv, "PATH" => "#{Path.dirname(python)}:#{path || @default_path}"}
    end
  end

  defp await_worker(tag, deadline) do
    receive do
      {^tag, detail} -> {:ok, detail}
      {:snex_ended, down} -> {:error, Down.error(down)}
    after
      Request.time_left(deadline) -> {:error, %Error{code: :init_script_timeout}}
    end
  end

  defp run_init_script(_owner, nil, _deadline), do: :ok

  defp run_init_script(owner, call, deadline) when is_function(call) or tuple_size(call) == 3 do
    what = "the function in the option :init_script"

    with {:ok, returned} <- Environment.call(call, what),
         {:ok, script} <- returned_script(Checks.init_script(returned), what) do
      run_init_script(owner, script, deadline)
    else
      {:error, complaint} -> failed(complaint)
    end
  end

  defp run_init_script(owner, {code, vars}, deadline) do
    request = Request.eval(0, code, vars, %{run: :loop, returns: :value})

    options = %{deadline: deadline, on_timeout: :leave, output: nil}

    case Request.run(owner, request, Serde.options!([]), options) do
      {{:ok, _value}, []} ->
        :ok

      {{:error, %Error{code: :response_timeout}}, []} ->
        {:error, %Error{code: :init_script_timeout, details: %{during: :init_script}}}

      {{:error, error}, []} ->
        {:error, error}
    end
  end

  defp returned_script({:ok, {_code, _vars} = script}, _what), do: {:ok, script}
  defp returned_script({:ok, _function}, what), do: {:error, "#{what} returned another function"}

  defp returned_script({:error, complaint}, what),
    do: {:error, "the value that #{what} returned #{complaint}"}

  defp failed(reason), do: {:error, %Error{code: :call_failed, reason: reason}}
end
