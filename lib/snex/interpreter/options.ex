defmodule Snex.Interpreter.Options do
  @moduledoc false
  # The options of an interpreter, checked and filled in.

  alias Snex.Code
  alias Snex.Interpreter.Definition
  alias Snex.Os
  alias Snex.Output
  alias Snex.Project
  alias Snex.Serde

  @server_options [:name, :timeout, :debug, :spawn_opt, :hibernate_after]

  @defaults [
    python: nil,
    wrap_exec: nil,
    cd: nil,
    environment: %{},
    python_path: [],
    init_script: nil,
    init_script_timeout: 60_000,
    sync_start?: true,
    label: nil,
    encoding_opts: [],
    port_opts: [],
    eager_polyfill?: true,
    stop_timeout: 5_000,
    on_stuck: :report,
    limits: [],
    allow: :all,
    atoms: :create,
    output: :group_leader
  ]

  # Of a project that is made at run time. They come to the interpreter as its Python.
  @project_options [:pyproject_toml, :uv, :python_preference, :groups, :extras]

  @limits [:memory, :cpu, :open_files, :nice]

  @port_defaults [
    use_stdio: false,
    busy_limits_port: {4 * 1024 * 1024, 8 * 1024 * 1024},
    busy_limits_msgq: :disabled,
    parallelism: false
  ]

  # More than any queue holds.
  @no_limit {0xFFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF}

  @type t() :: %{required(atom()) => term()}

  @doc """
  The default of one option.
  """
  @spec default(atom()) :: term()
  def default(name), do: Keyword.fetch!(@defaults, name)

  @doc """
  Splits options into those of `GenServer.start_link/3` and those of an interpreter, as a map. Raises `ArgumentError` for one
  that is neither, or has a value that it cannot have.
  """
  @spec split!(keyword()) :: {keyword(), t()}
  def split!(opts) do
    if not Keyword.keyword?(opts) do
      raise ArgumentError, "expected a keyword list of options, got: #{inspect(opts)}"
    end

    {server_options, own} = Keyword.split(opts, @server_options)
    {project_options, own} = Keyword.split(own, @project_options)
    known!(own, @defaults, @server_options ++ @project_options)
    own = if project_options == [], do: own, else: [{:python, project!(own, project_options)} | own]

    options =
      Map.new(Keyword.merge(@defaults, own), fn {name, value} -> {name, check!(name, value)} end)

    {server_options, options}
  end

  defp project!(own, options) do
    for {name, value} <- options, not Definition.valid?(name, value) do
      raise ArgumentError, "option #{inspect(name)} cannot be #{inspect(value)}"
    end

    {toml, options} = Keyword.pop(options, :pyproject_toml)

    cond do
      toml == nil ->
        raise ArgumentError,
              "#{inspect(Keyword.keys(options))} go with the option :pyproject_toml, which is missing"

      own[:python] != nil ->
        raise ArgumentError, "of the options :python and :pyproject_toml there can be one"

      true ->
        with {:error, problems} <- Project.Check.check({:toml, toml}) do
          raise ArgumentError,
                "the option :pyproject_toml has mistakes:\n\n" <> Project.Check.describe(problems)
        end

        Project.at_run_time(toml, options)
    end
  end

  defp known!(options, defaults, others) do
    known = Keyword.keys(defaults)

    for {name, _value} <- options, name not in known do
      raise ArgumentError, "unknown option #{inspect(name)}#{suggestion(name, known ++ others)}"
    end
  end

  defp suggestion(name, known) do
    wanted = to_string(name)
    nearest = Enum.max_by(known, &String.jaro_distance(to_string(&1), wanted))

    if String.jaro_distance(to_string(nearest), wanted) > 0.7,
      do: ", did you mean #{inspect(nearest)}?",
      else: "; known are #{inspect(Enum.sort(known))}"
  end

  defp check!(:python, value) when is_binary(value) or is_nil(value) or is_struct(value, Project),
    do: value

  defp check!(:python_path, value), do: python_path!(value)
  defp check!(:wrap_exec, value) when is_function(value, 2) or is_nil(value), do: value

  defp check!(:wrap_exec, {m, f, a} = value) when is_atom(m) and is_atom(f) and is_list(a),
    do: value

  defp check!(:cd, nil), do: nil

  defp check!(:cd, value) when is_binary(value) or is_list(value),
    do: IO.chardata_to_string(value)

  defp check!(:environment, value) when is_map(value), do: variables!(value)
  defp check!(:environment, {:only, value}) when is_map(value), do: {:only, variables!(value)}

  defp check!(:environment, other) do
    raise ArgumentError,
          "expected :environment to be a map of variables or {:only, map}, got: #{inspect(other)}"
  end

  defp check!(:init_script, nil), do: nil
  defp check!(:init_script, {code, vars}) when is_map(vars), do: {code!(code), vars}
  defp check!(:init_script, code), do: {code!(code), %{}}
  defp check!(:init_script_timeout, value) when is_integer(value) and value >= 0, do: value
  defp check!(:init_script_timeout, :infinity), do: :infinity

  defp check!(name, value) when name in [:sync_start?, :eager_polyfill?] and is_boolean(value),
    do: value

  defp check!(:label, value), do: value
  defp check!(:encoding_opts, value), do: Serde.options!(value)
  defp check!(:port_opts, value) when is_list(value), do: port_options!(value)
  defp check!(:stop_timeout, value) when is_integer(value) and value >= 0, do: value
  defp check!(:on_stuck, value) when value in [:report, :restart], do: value
  defp check!(:atoms, value) when value in [:create, :existing], do: value
  defp check!(:output, value), do: Output.destination!(value)
  defp check!(:limits, value) when is_list(value) or is_map(value), do: limits!(Map.new(value))
  defp check!(:allow, :all), do: nil
  defp check!(:allow, :none), do: []
  defp check!(:allow, rules) when is_list(rules), do: Enum.map(rules, &rule!/1)

  defp check!(name, value) do
    raise ArgumentError, "option #{inspect(name)} cannot be #{inspect(value)}"
  end

  @doc """
  The folders that the option `:python_path` names.
  """
  @spec python_path!(term()) :: [Path.t()]
  def python_path!(option), do: option |> List.wrap() |> Enum.map(&folder!/1)

  defp folder!(path) when is_binary(path), do: Path.expand(path)

  defp folder!({app, path}) when is_atom(app) and is_binary(path) do
    # Where the application is now: in a release, or in `_build`, where `priv` is a link to the sources.
    Os.app_dir(app, path)
  end

  defp folder!(other) do
    raise ArgumentError,
          "expected :python_path to be a folder, {application, folder}, or a list of these, got: #{inspect(other)}"
  end

  # What the system has no way to pass on is refused here, where it can be named.
  defp variables!(variables) do
    for {name, text} <- variables do
      cond do
        not (is_binary(name) and is_binary(text)) ->
          raise ArgumentError,
                "expected :environment to map strings to strings, got: #{inspect({name, text})}"

        name == "" or String.contains?(name, ["=", "\0"]) ->
          raise ArgumentError, "no environment variable can be named #{inspect(name)}"

        String.contains?(text, "\0") ->
          raise ArgumentError, "the environment variable #{name} cannot have a NUL in its value"

        true ->
          :ok
      end
    end

    variables
  end

  defp limits!(limits) do
    for {name, value} <- limits do
      cond do
        name not in @limits ->
          raise ArgumentError, "unknown limit #{inspect(name)}#{suggestion(name, @limits)}"

        name == :nice and value in -20..19 ->
          :ok

        name != :nice and is_integer(value) and value > 0 ->
          :ok

        true ->
          raise ArgumentError, "the limit #{inspect(name)} cannot be #{inspect(value)}"
      end
    end

    {limits[:memory], limits[:cpu], limits[:open_files], limits[:nice]}
  end

  # As the native code wants it: names as text, the more of them the narrower.
  defp rule!(module) when is_atom(module), do: {to_string(module), nil, nil}

  defp rule!({module, fun}) when is_atom(module) and is_atom(fun),
    do: {to_string(module), to_string(fun), nil}

  defp rule!({module, fun, arity}) when is_atom(module) and is_atom(fun) and arity in 0..255,
    do: {to_string(module), to_string(fun), arity}

  defp rule!(other) do
    raise ArgumentError,
          "expected :allow to be :all, :none, or a list of Module, {Module, fun} and {Module, fun, arity}, found: " <>
            inspect(other)
  end

  defp code!(%Code{} = code), do: code
  defp code!(source) when is_binary(source), do: %Code{src: source}

  defp code!(other) do
    raise ArgumentError,
          "expected :init_script to be a string or a Snex.Code, got: #{inspect(other)}"
  end

  defp port_options!(value) do
    options = Enum.map(value, &if(is_atom(&1), do: {&1, true}, else: &1))
    known!(options, @port_defaults, [])
    options = Map.new(Keyword.merge(@port_defaults, options))

    case options.busy_limits_port do
      :disabled ->
        %{options | busy_limits_port: @no_limit}

      {low, high} when is_integer(low) and is_integer(high) and 0 <= low and low <= high ->
        options

      other ->
        raise ArgumentError,
              "expected :busy_limits_port to be {low, high} in bytes with low <= high, got: #{inspect(other)}"
    end
  end
end
