defmodule Snex.Interpreter.Definition do
  # What `use Snex.Interpreter` puts into a module.
  @moduledoc false

  alias Snex.Interpreter
  alias Snex.Options
  alias Snex.Project

  @restart [
    type: {:in, [:permanent, :transient, :temporary]},
    doc: "when a supervisor restarts the interpreter, see `Supervisor`"
  ]

  @doc """
  The body of `Snex.Interpreter.__using__/1`.

  Options of the project are evaluated in the module's body. Those that are defaults of `start_link/1` become clauses of a
  function, which evaluates them when an interpreter starts: they may be anything that a function can return, such as
  anonymous functions, and secrets stay out of the compiled module. Where `opts` is no list but code that makes one, all of
  it is evaluated in the body.
  """
  @spec define(Macro.t()) :: Macro.t()
  def define(opts) do
    {defaults, opts} = if Keyword.keyword?(opts), do: Keyword.split(opts, default_names()), else: {[], opts}
    literals = Enum.filter(defaults, fn {_name, value} -> literal?(value) end)

    clauses =
      for {name, value} <- Enum.uniq_by(defaults, &elem(&1, 0)) do
        quote do
          defp __snex_default__(unquote(name)), do: unquote(value)
        end
      end

    quote do
      {project, defaults} = Snex.Interpreter.Definition.install!(unquote(opts), unquote(literals), __ENV__)

      # Persisted: `Snex.Release` reads it from the compiled module.
      Module.register_attribute(__MODULE__, :snex_project, persist: true)
      @snex_project project
      @snex_defaults defaults
      @snex_default_names unquote(Keyword.keys(defaults)) ++ Keyword.keys(defaults)

      for path <- Snex.Project.Stamp.resources(@snex_project), do: @external_resource(path)

      @doc """
      Starts this interpreter, in its own Python environment. Takes the options of `Snex.Interpreter.start_link/1`.
      """
      @spec start_link([Snex.Interpreter.option()]) :: GenServer.on_start()
      def start_link(opts \\ []) do
        opts
        |> Snex.Interpreter.Definition.options(@snex_project, @snex_default_names, &__snex_default__/1)
        |> Snex.Interpreter.start_link()
      end

      unquote_splicing(clauses)
      defp __snex_default__(name), do: Keyword.fetch!(@snex_defaults, name)

      @doc """
      Returns a specification to start this interpreter under a supervisor, with the options of `start_link/1`.

      Its id is the `:name`, or this module.
      """
      @spec child_spec([Snex.Interpreter.option()]) :: Supervisor.child_spec()
      def child_spec(opts) do
        Snex.Interpreter.Definition.child_spec(__MODULE__, opts, @snex_default_names, &__snex_default__/1)
      end

      @doc false
      @spec __mix_recompile__?() :: boolean()
      def __mix_recompile__?, do: Snex.Project.stale?(@snex_project)

      @doc """
      Returns Python's process id in the operating system; see `Snex.Interpreter.os_pid/1`.
      """
      @spec os_pid(Snex.Interpreter.server()) :: non_neg_integer() | nil
      defdelegate os_pid(interpreter), to: Snex.Interpreter

      @doc """
      Returns the state of this interpreter; see `Snex.Interpreter.info/2`.
      """
      @spec info(Snex.Interpreter.server(), timeout()) :: map()
      defdelegate info(interpreter, timeout \\ 5_000), to: Snex.Interpreter

      @doc """
      Stops an interpreter; see `Snex.Interpreter.stop/3`.
      """
      @spec stop(Snex.Interpreter.server(), term(), timeout()) :: :ok
      def stop(interpreter, reason \\ :normal, timeout \\ :infinity),
        do: Snex.Interpreter.stop(interpreter, reason, timeout)

      defoverridable start_link: 0, start_link: 1, child_spec: 1, __mix_recompile__?: 0
    end
  end

  defp literal?({:-, _meta, [number]}), do: is_number(number)
  defp literal?(quoted), do: Macro.quoted_literal?(quoted)

  @doc """
  The options of `start_link/1`: those given, then the defaults of the module that they do not override. To a copy, the module's
  defaults come with its template.
  """
  @spec options(keyword(), Project.t(), [atom()], (atom() -> term())) :: keyword()
  def options(opts, project, names, default) do
    if Options.keyword!(opts)[:template] do
      opts
    else
      (opts ++ missing(opts, names -- [:restart], default))
      |> Keyword.put_new(:python, project)
      |> Keyword.put_new(:python_path, project.python_path)
      |> Keyword.put_new(:label, project.module)
    end
  end

  @doc """
  The child specification of a module. Evaluates only the defaults that it needs.
  """
  @spec child_spec(module(), keyword(), [atom()], (atom() -> term())) :: Supervisor.child_spec()
  def child_spec(module, opts, names, default) do
    wanted = for name <- [:name, :stop_timeout, :restart], name in names, do: name
    known = Options.keyword!(opts) ++ missing(opts, wanted, default)

    overrides =
      [id: known[:name] || module, start: {module, :start_link, [opts]}] ++ Keyword.take(known, [:restart])

    known |> Interpreter.child_spec() |> Supervisor.child_spec(overrides)
  end

  defp missing(opts, names, default) do
    for name <- names, not Keyword.has_key?(opts, name), do: {name, default.(name)}
  end

  @doc """
  Checks the options, and makes the Python environment of the module that `env` is about, unless it is there. `literals` are
  defaults of `start_link/1` that can be checked here although they are evaluated later. Returns the project, and the defaults
  that were evaluated with `opts`.
  """
  @spec install!(keyword(), keyword(), Macro.Env.t()) :: {Project.t(), keyword()}
  def install!(opts, literals, env) do
    {opts, defaults} = check!(opts, literals, env)
    {source, opts} = source!(opts, env)
    Project.Check.check!(source, env)
    project = Project.new(env.module, source, opts)
    Project.Tidy.hold(project)

    case Project.install(project) do
      :ok ->
        Project.Tidy.note(project, env.file)
        {project, defaults}

      {:error, message} ->
        Project.Check.refused!(source, message, env)
    end
  end

  defp check!(opts, literals, env) do
    {defaults, project} = opts |> Options.keyword!() |> Keyword.split(default_names())
    _checked = Options.check!(defaults ++ literals ++ project, table())
    {project, defaults}
  rescue
    error in ArgumentError -> fail(env, "use Snex.Interpreter: " <> Exception.message(error))
  end

  defp table, do: Project.Options.table() ++ [restart: @restart] ++ Interpreter.Options.table()

  # A project's options keep their meaning here.
  defp default_names,
    do: [:restart | Keyword.keys(Interpreter.Options.table())] -- Keyword.keys(Project.Options.table())

  defp source!(opts, env) do
    {source, opts} = Keyword.split(opts, [:pyproject_toml, :project_path])

    case source do
      [pyproject_toml: toml] ->
        if opts[:install_project] do
          fail(
            env,
            "use Snex.Interpreter: install_project: needs :project_path; the text of a :pyproject_toml has no package"
          )
        end

        {{:toml, toml}, opts}

      [project_path: path] ->
        path = Path.expand(path)

        if opts[:lock] do
          fail(env, "use Snex.Interpreter: lock: needs :pyproject_toml; a folder has its own uv.lock")
        end

        unless File.exists?(Path.join(path, "pyproject.toml")) do
          fail(env, "use Snex.Interpreter: there is no pyproject.toml in #{path}")
        end

        if opts[:install_project] && not Project.Check.builds?({:path, path}) do
          fail(
            env,
            "use Snex.Interpreter: install_project: cannot install #{path}, because its pyproject.toml has no [build-system] " <>
              "table, which says how the package is built"
          )
        end

        {{:path, path}, opts}

      _ ->
        fail(env, "use Snex.Interpreter takes one of :pyproject_toml and :project_path")
    end
  end

  @spec fail(Macro.Env.t(), String.t()) :: no_return()
  defp fail(env, message) do
    raise CompileError, file: env.file, line: env.line, description: message
  end
end
