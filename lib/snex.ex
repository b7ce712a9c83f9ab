defmodule Snex do
  @external_resource readme = Path.expand("../README.md", __DIR__)

  @moduledoc readme |> File.read!() |> String.split("<!-- MDOC !-->") |> Enum.at(1)

  alias Snex.Code
  alias Snex.Env
  alias Snex.Error
  alias Snex.Eval
  alias Snex.Interpreter
  alias Snex.Native
  alias Snex.Output
  alias Snex.Request
  alias Snex.Serde

  @typedoc "Python code. `nil` runs nothing, and only sets variables."
  @type code() :: String.t() | Code.t() | nil

  @typedoc "Names and values that are set before the code runs, and stay in the environment."
  @type vars() :: %{optional(String.t()) => term()}

  @type pyeval_opt() ::
          {:timeout, timeout()}
          | {:on_timeout, :cancel | :leave}
          | {:encoding_opts, Serde.encoding_opts()}
          | {:output, Interpreter.output() | [stdout: Interpreter.output(), stderr: Interpreter.output()]}

  @typedoc "An environment to copy names from, all or some."
  @type from() :: Env.t() | {Env.t(), only: [String.t()]} | {Env.t(), except: [String.t()]}

  @type make_env_opt() :: {:from, from() | [from()]} | {:encoding_opts, Serde.encoding_opts()}

  @timeout 5_000

  @doc """
  Runs Python code, and returns the value of its `return` statement: `{:ok, value}` or `{:error, %Snex.Error{}}`.

  In an environment, the names that the code assigns stay for later calls. Given an interpreter, the code runs in a fresh
  copy of its root environment, which is dropped afterwards. Each of `code`, `vars` and `opts` may be left out.

  `return` works anywhere at the top level of the code, and so does `await`. Without a `return` the value is `nil`.

    * `:timeout` - in ms, or `:infinity`; #{@timeout} by default. When it is over, the work in Python is cancelled
    * `:on_timeout` - `:cancel` by default: the task in Python is cancelled, and code that blocks is interrupted by
      `snex.Cancelled`; `:leave` lets it run on, and only drops its answer. The same happens when the calling process dies,
      which always cancels
    * `:encoding_opts` - see `t:Snex.Serde.encoding_opts/0`, for this call
    * `:output` - where this call's prints go; see `Snex.Interpreter.start_link/1`

  Raises `ArgumentError` when `vars` are not a map with strings as keys.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return x ** 100", %{"x" => 2})
      {:ok, 1267650600228229401496703205376}

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> {:ok, nil} = Snex.pyeval(env, "import math; radius = 2.0")
      iex> {:ok, area} = Snex.pyeval(env, "return math.pi * radius ** 2")
      iex> Float.round(area, 3)
      12.566

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:error, error} = Snex.pyeval(interpreter, "return 1 / 0")
      iex> {error.code, error.reason}
      {:python_runtime_error, "division by zero"}
  """
  @spec pyeval(Env.t() | Interpreter.server(), code(), vars(), [pyeval_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def pyeval(env_or_interpreter, code, vars, opts)

  def pyeval(env_or_interpreter, code, vars, opts) when is_map(vars) and is_list(opts) do
    code = code!(code)
    known!(opts, [:timeout, :encoding_opts, :on_timeout, :output])
    encoding = Serde.options!(Keyword.get(opts, :encoding_opts, []))

    options = %{
      deadline: Request.deadline(timeout!(Keyword.get(opts, :timeout, @timeout))),
      on_timeout: on_timeout!(Keyword.get(opts, :on_timeout, :cancel)),
      output: opts[:output] && Output.destination!(opts[:output])
    }

    with {:ok, interpreter, env_id} <- target(env_or_interpreter),
         do: Eval.run(interpreter, Eval.request(env_id, code, vars!(vars)), encoding, options)
  end

  def pyeval(_env_or_interpreter, _code, vars, opts) when is_list(opts), do: vars!(vars)

  def pyeval(_env_or_interpreter, _code, _vars, opts) do
    raise ArgumentError, "expected a keyword list of options, got: #{inspect(opts)}"
  end

  @doc "See `pyeval/4`."
  @spec pyeval(Env.t() | Interpreter.server(), code() | vars(), vars() | [pyeval_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def pyeval(env_or_interpreter, %{} = vars, opts) when not is_struct(vars) and is_list(opts),
    do: pyeval(env_or_interpreter, nil, vars, opts)

  def pyeval(env_or_interpreter, code, opts) when is_list(opts),
    do: pyeval(env_or_interpreter, code, %{}, opts)

  def pyeval(env_or_interpreter, code, vars), do: pyeval(env_or_interpreter, code, vars, [])

  @doc "See `pyeval/4`."
  @spec pyeval(Env.t() | Interpreter.server(), code() | vars() | [pyeval_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def pyeval(env_or_interpreter, opts) when is_list(opts),
    do: pyeval(env_or_interpreter, nil, %{}, opts)

  def pyeval(env_or_interpreter, %{} = vars) when not is_struct(vars),
    do: pyeval(env_or_interpreter, nil, vars, [])

  def pyeval(env_or_interpreter, code), do: pyeval(env_or_interpreter, code, %{}, [])

  @doc """
  Makes an environment: `{:ok, %Snex.Env{}}` or `{:error, %Snex.Error{}}`.

  It starts as a copy of the interpreter's root environment (what the init script left), plus what `:from` names, plus `vars`.

    * `:from` - an environment, `{env, only: names}`, `{env, except: names}`, or a list of these; later ones override
      earlier ones. The interpreter may be left out then
    * `:encoding_opts` - see `t:Snex.Serde.encoding_opts/0`

  Raises `ArgumentError` for environments of different interpreters, and for `:only` together with `:except`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, old} = Snex.make_env(interpreter, %{"a" => 1, "b" => 2})
      iex> {:ok, new} = Snex.make_env(%{"c" => 3}, from: {old, only: ["b"]})
      iex> Snex.pyeval(new, "return (b, c, 'a' in globals())")
      {:ok, {2, 3, false}}
  """
  @spec make_env(Interpreter.server(), vars(), [make_env_opt()]) ::
          {:ok, Env.t()} | {:error, Error.t()}
  def make_env(interpreter, vars, opts) when is_list(opts) do
    known!(opts, [:from, :encoding_opts])
    encoding = Serde.options!(Keyword.get(opts, :encoding_opts, []))
    sources = Enum.map(List.wrap(Keyword.get(opts, :from, [])), &source!/1)
    vars = vars!(vars)

    with {:ok, pid} <- interpreter(interpreter) do
      for {env, _mode, _names} <- sources, env.interpreter != pid do
        raise ArgumentError,
              "#{inspect(env)} belongs to the interpreter #{inspect(env.interpreter)}, not to #{inspect(pid)}"
      end

      from = for {env, mode, names} <- sources, do: {env.id, mode, names}
      new_env(pid, %{from: from, vars: vars}, encoding)
    end
  end

  @doc "See `make_env/3`."
  @spec make_env(Interpreter.server() | vars(), vars() | [make_env_opt()]) ::
          {:ok, Env.t()} | {:error, Error.t()}
  def make_env(%{} = vars, opts) when not is_struct(vars) and is_list(opts),
    do: make_env(interpreter_of!(opts), vars, opts)

  def make_env(interpreter, opts) when is_list(opts), do: make_env(interpreter, %{}, opts)
  def make_env(interpreter, vars), do: make_env(interpreter, vars, [])

  @doc "See `make_env/3`."
  @spec make_env(Interpreter.server() | [make_env_opt()]) :: {:ok, Env.t()} | {:error, Error.t()}
  def make_env(opts) when is_list(opts), do: make_env(interpreter_of!(opts), %{}, opts)
  def make_env(interpreter), do: make_env(interpreter, %{}, [])

  @doc """
  Drops an environment now. `:ok` also when it is gone already, or its interpreter is.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.destroy_env(env)
      :ok
      iex> {:error, error} = Snex.pyeval(env, "return 1")
      iex> error.code
      :env_not_found
  """
  @spec destroy_env(Env.t()) :: :ok
  def destroy_env(%Env{} = env), do: Native.environment_destroy(env.interpreter, env.id)

  defp new_env(pid, make, encoding) do
    submit = fn reference, scheduler, encoded ->
      encoding = put_elem(encoding, 3, encoded)

      case scheduler do
        :normal -> Native.request_make_env(pid, reference, make, encoding)
        :dirty -> Native.request_make_env_dirty(pid, reference, make, encoding)
      end
    end

    options = %{deadline: Request.deadline(@timeout), on_timeout: :leave, output: nil}

    with {:ok, _nil, {:ok, _request, id, handle}} <- Request.call(pid, submit, options),
         do: {:ok, %Env{id: id, interpreter: pid, handle: handle}}
  end

  defp target(%Env{} = env), do: {:ok, env.interpreter, env.id}
  defp target(server), do: with({:ok, pid} <- interpreter(server), do: {:ok, pid, nil})

  defp interpreter(pid) when is_pid(pid), do: {:ok, pid}

  defp interpreter(server) do
    case GenServer.whereis(server) do
      pid when is_pid(pid) -> {:ok, pid}
      _none -> {:error, %Error{code: :call_failed, reason: :noproc}}
    end
  end

  defp interpreter_of!(opts) do
    case List.wrap(opts[:from]) do
      [first | _rest] ->
        {env, _mode, _names} = source!(first)
        env.interpreter

      [] ->
        raise ArgumentError, "expected an interpreter, or the option :from, got: #{inspect(opts)}"
    end
  end

  defp source!(%Env{} = env), do: {env, 0, []}
  defp source!({%Env{} = env, []}), do: {env, 0, []}
  defp source!({%Env{} = env, [only: names]}), do: {env, 1, names!(names)}
  defp source!({%Env{} = env, [except: names]}), do: {env, 2, names!(names)}

  defp source!(other) do
    raise ArgumentError,
          "expected :from to be an environment, {env, only: names}, {env, except: names} or a list of these, got: " <>
            inspect(other)
  end

  defp names!(names) do
    if is_list(names) and Enum.all?(names, &is_binary/1) do
      names
    else
      raise ArgumentError, "expected a list of names as strings, got: #{inspect(names)}"
    end
  end

  defp code!(nil), do: %Code{src: ""}
  defp code!(%Code{} = code), do: code
  defp code!(source) when is_binary(source), do: %Code{src: source}

  defp code!(other) do
    raise ArgumentError, "expected code as a string or a Snex.Code, got: #{inspect(other)}"
  end

  defp vars!(%{} = vars) when not is_struct(vars), do: vars

  defp vars!(other) do
    raise ArgumentError, "expected variables as a map with string keys, got: #{inspect(other)}"
  end

  defp timeout!(:infinity), do: :infinity
  defp timeout!(timeout) when is_integer(timeout) and timeout >= 0, do: timeout

  defp timeout!(other) do
    raise ArgumentError, "expected :timeout in milliseconds or :infinity, got: #{inspect(other)}"
  end

  defp on_timeout!(what) when what in [:cancel, :leave], do: what

  defp on_timeout!(other) do
    raise ArgumentError, "expected :on_timeout to be :cancel or :leave, got: #{inspect(other)}"
  end

  defp known!(opts, known) do
    for {name, _value} <- opts, name not in known do
      raise ArgumentError, "unknown option #{inspect(name)}; known are #{inspect(known)}"
    end
  end
end
