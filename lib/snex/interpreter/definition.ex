defmodule Snex.Interpreter.Definition do
  # What `use Snex.Interpreter` puts into a module.
  @moduledoc false

  alias Snex.Project

  @options [:pyproject_toml, :project_path, :lock, :uv, :python_preference, :groups, :extras, :python_path]
  @preferences [:managed, :system, :only_managed, :only_system]

  @doc """
  The body of `Snex.Interpreter.__using__/1`.
  """
  @spec define(Macro.t()) :: Macro.t()
  def define(opts) do
    quote do
      # The options are evaluated here, in the module's body: they may be any expression.
      # Persisted: `Snex.Release` reads it from the compiled module.
      Module.register_attribute(__MODULE__, :snex_project, persist: true)
      @snex_project Snex.Interpreter.Definition.install!(unquote(opts), __ENV__)

      for path <- Snex.Project.resources(@snex_project), do: @external_resource(path)

      @doc """
      Starts this interpreter, in its own Python environment. Takes the options of `Snex.Interpreter.start_link/1`.
      """
      @spec start_link([Snex.Interpreter.option()]) :: GenServer.on_start()
      def start_link(opts \\ []) do
        opts
        |> Keyword.put_new_lazy(:python, fn -> Snex.Project.python!(@snex_project) end)
        |> Keyword.put_new(:python_path, @snex_project.python_path)
        |> Snex.Interpreter.start_link()
      end

      @doc """
      A specification to start this interpreter under a supervisor, with the options of `start_link/1`.
      Its id is the `:name` given, or this module.
      """
      @spec child_spec([Snex.Interpreter.option()]) :: Supervisor.child_spec()
      def child_spec(opts) do
        opts
        |> Snex.Interpreter.child_spec()
        |> Supervisor.child_spec(
          id: Keyword.get(opts, :name, __MODULE__),
          start: {__MODULE__, :start_link, [opts]}
        )
      end

      @doc false
      @spec __mix_recompile__?() :: boolean()
      def __mix_recompile__?, do: Snex.Project.stale?(@snex_project)

      @doc """
      The process id that Python has in the operating system.
      """
      @spec os_pid(Snex.Interpreter.server()) :: non_neg_integer()
      defdelegate os_pid(interpreter), to: Snex.Interpreter

      @doc """
      What this interpreter is and does; see `Snex.Interpreter.info/1`.
      """
      @spec info(Snex.Interpreter.server()) :: map()
      defdelegate info(interpreter), to: Snex.Interpreter

      @doc """
      Stops an interpreter; see `Snex.Interpreter.stop/3`.
      """
      @spec stop(Snex.Interpreter.server(), term(), timeout()) :: :ok
      def stop(interpreter, reason \\ :normal, timeout \\ :infinity),
        do: Snex.Interpreter.stop(interpreter, reason, timeout)

      defoverridable start_link: 0, start_link: 1, child_spec: 1, __mix_recompile__?: 0
    end
  end

  @doc """
  Checks the options, and makes the Python environment of the module that `env` is about, unless it is there.
  """
  @spec install!(keyword(), Macro.Env.t()) :: Project.t()
  def install!(opts, env) do
    {source, opts} = check!(opts, env)
    Project.Check.check!(source, env)
    project = Project.new(env.module, source, opts)

    case Project.install(project) do
      :ok ->
        Project.Tidy.expect(project, env.file)
        project

      {:error, message} ->
        fail(
          env,
          "the Python environment of #{inspect(env.module)} could not be made: #{message}"
        )
    end
  end

  defp check!(opts, env) do
    unless Keyword.keyword?(opts) do
      fail(env, "use Snex.Interpreter takes a keyword list, not: #{inspect(opts)}")
    end

    for {name, value} <- opts do
      if name not in @options,
        do: fail(env, "use Snex.Interpreter has no option #{inspect(name)}#{did_you_mean(name)}")

      unless valid?(name, value),
        do: fail(env, "use Snex.Interpreter cannot use #{inspect([{name, value}])}")
    end

    {source, opts} = Keyword.split(opts, [:pyproject_toml, :project_path])

    case source do
      [pyproject_toml: toml] ->
        {{:toml, toml}, opts}

      [project_path: path] ->
        path = Path.expand(path)

        if opts[:lock] do
          fail(env, "use Snex.Interpreter: lock: goes with :pyproject_toml; a folder has its own uv.lock")
        end

        unless File.exists?(Path.join(path, "pyproject.toml")) do
          fail(env, "use Snex.Interpreter: there is no pyproject.toml in #{path}")
        end

        {{:path, path}, opts}

      _ ->
        fail(env, "use Snex.Interpreter takes one of :pyproject_toml and :project_path")
    end
  end

  @doc """
  Whether an option of a project can have a value.
  """
  @spec valid?(atom(), term()) :: boolean()
  def valid?(:python_preference, value), do: value in @preferences
  def valid?(:groups, nil), do: true

  def valid?(name, value) when name in [:groups, :extras],
    do: is_list(value) and Enum.all?(value, &name?/1)

  # Looked at when an interpreter starts: its folders may not be there yet.
  def valid?(:python_path, _value), do: true
  def valid?(_name, value), do: is_binary(value)

  defp name?(value), do: is_binary(value) or (is_atom(value) and value not in [nil, true, false])

  defp did_you_mean(name) do
    nearest = Enum.max_by(@options, &String.jaro_distance(to_string(&1), to_string(name)))
    ". Did you mean #{inspect(nearest)}?"
  end

  @spec fail(Macro.Env.t(), String.t()) :: no_return()
  defp fail(env, message) do
    raise CompileError, file: env.file, line: env.line, description: message
  end
end
