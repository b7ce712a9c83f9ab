defmodule Snex do
  @external_resource readme = Path.expand("../README.md", __DIR__)

  # What Snex is, and how it is used. Between these two the README has commands for its own checkout.
  [_title, what, _commands, rest, _contributors] = readme |> File.read!() |> String.split("<!-- MDOC !-->")
  @moduledoc what <> rest

  alias Snex.Arguments
  alias Snex.CallOptions
  alias Snex.Code
  alias Snex.Env
  alias Snex.Error
  alias Snex.Handle
  alias Snex.Interpreter
  alias Snex.Invoke
  alias Snex.Mapping
  alias Snex.Object
  alias Snex.Options
  alias Snex.Remote
  alias Snex.Request
  alias Snex.Returning
  alias Snex.Telemetry

  @typedoc "Python code. With `nil`, variables are set and nothing runs."
  @type code() :: String.t() | Code.t() | nil

  @typedoc "Variables, which are set before the code runs and stay in the environment."
  @type vars() :: %{optional(String.t()) => term()}

  @typedoc "One or more Python expressions whose values are returned."
  @type returning() :: String.t() | [String.t()]

  @type pyeval_opt() :: unquote(Options.spec(CallOptions.pyeval()))

  @typedoc "A dotted path, `\"math.sqrt\"`, or a path within a module, `{\"os.path\", \"join\"}`."
  @type path() :: String.t() | {module :: String.t(), path :: String.t()}

  @type call_opt() :: unquote(Options.spec(CallOptions.call()))
  @type get_opt() :: unquote(Options.spec(CallOptions.get()))

  @typedoc "What produces the items of a stream: code, or a function with its arguments."
  @type source() ::
          code()
          | {path(), args :: [term()]}
          | {path(), args :: [term()], kwargs :: keyword() | %{optional(String.t() | atom()) => term()}}

  @type map_opt() :: unquote(Options.spec(CallOptions.map()))
  @type stream_opt() :: unquote(Options.spec(CallOptions.stream()))

  @typedoc "An environment to copy names from, all or some."
  @type from() :: Env.t() | {Env.t(), only: [String.t()]} | {Env.t(), except: [String.t()]}

  @type make_env_opt() :: unquote(Options.spec(CallOptions.make_env()))

  @doc """
  Runs Python code, and returns the value of its `return` statement: `{:ok, value}` or `{:error, %Snex.Error{}}`.

  In an environment, the names that the code assigns are kept for later calls. If an interpreter is given instead, the
  code runs in a fresh copy of its root environment, which is dropped afterwards. `code`, `vars` and `opts` can each be
  left out.

  `return` works anywhere at the top level of the code, and so does `await`. Without a `return`, the value is `nil`.

  #{Options.documentation(CallOptions.pyeval())}

  The interpreter may be on any node of the cluster. Output appears on the calling node. If the calling process or its
  node goes down, the call is cancelled. If the interpreter's node goes down, the error has the code `:call_failed` and
  the reason `{:nodedown, node}`. Functions of a `Snex.Serde.Encoder`, and functions that Python calls, run on the
  interpreter's node.

  Raises `ArgumentError` if `vars` is not a map with strings as keys.

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

  def pyeval(env_or_interpreter, code, vars, opts) do
    opts = CallOptions.pyeval!(opts)
    code = code |> code!() |> Returning.append(opts.returning)
    vars = vars!(vars)

    options = CallOptions.request(opts)
    {interpreter, env_id} = target(env_or_interpreter)
    request = Request.eval(env_id, code, vars, opts)

    Telemetry.call(:pyeval, env_or_interpreter, fn ->
      result = Remote.run(interpreter, Request, :run, [request, opts.encoding_opts], options)
      Env.hold(env_or_interpreter)
      Error.in_call(result, env_or_interpreter, opts.timeout)
    end)
  end

  @doc """
  `pyeval/4` with one of `code`, `vars` and `opts` left out.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval(interpreter, "return name.title()", %{"name" => "ada lovelace"})
      {:ok, "Ada Lovelace"}
      iex> Snex.pyeval(interpreter, "return 6 * 7", timeout: 60_000)
      {:ok, 42}
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.pyeval(env, %{"name" => "ada"}, encoding_opts: [binary_as: :bytes])
      {:ok, nil}
  """
  @spec pyeval(Env.t() | Interpreter.server(), code() | vars(), vars() | [pyeval_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def pyeval(env_or_interpreter, %{} = vars, opts) when not is_struct(vars) and is_list(opts),
    do: pyeval(env_or_interpreter, nil, vars, opts)

  def pyeval(env_or_interpreter, code, opts) when is_list(opts),
    do: pyeval(env_or_interpreter, code, %{}, opts)

  def pyeval(env_or_interpreter, code, vars), do: pyeval(env_or_interpreter, code, vars, [])

  @doc """
  `pyeval/4` with one of `code`, `vars` and `opts` alone.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.pyeval(env, %{"x" => 20})
      {:ok, nil}
      iex> Snex.pyeval(env, "return x + 1")
      {:ok, 21}
  """
  @spec pyeval(Env.t() | Interpreter.server(), code() | vars() | [pyeval_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def pyeval(env_or_interpreter, opts) when is_list(opts),
    do: pyeval(env_or_interpreter, nil, %{}, opts)

  def pyeval(env_or_interpreter, %{} = vars) when not is_struct(vars),
    do: pyeval(env_or_interpreter, nil, vars, [])

  def pyeval(env_or_interpreter, code), do: pyeval(env_or_interpreter, code, %{}, [])

  @doc """
  `pyeval/4` that returns the value itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval!(interpreter, "return x * 2", %{"x" => 21}, timeout: 60_000)
      42
      iex> try do
      ...>   Snex.pyeval!(:nobody, "return x", %{"x" => 1}, timeout: 60_000)
      ...> rescue
      ...>   error in Snex.Error -> error.code
      ...> end
      :call_failed
  """
  @spec pyeval!(Env.t() | Interpreter.server(), code(), vars(), [pyeval_opt()]) :: term()
  def pyeval!(env_or_interpreter, code, vars, opts),
    do: Error.unwrap!(pyeval(env_or_interpreter, code, vars, opts))

  @doc """
  `pyeval/3` that returns the value itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval!(interpreter, "return x * 2", %{"x" => 21})
      42
  """
  @spec pyeval!(Env.t() | Interpreter.server(), code() | vars(), vars() | [pyeval_opt()]) :: term()
  def pyeval!(env_or_interpreter, code_or_vars, vars_or_opts),
    do: Error.unwrap!(pyeval(env_or_interpreter, code_or_vars, vars_or_opts))

  @doc """
  `pyeval/2` that returns the value itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.pyeval!(interpreter, "return 6 * 7")
      42
  """
  @spec pyeval!(Env.t() | Interpreter.server(), code() | vars() | [pyeval_opt()]) :: term()
  def pyeval!(env_or_interpreter, code_or_vars_or_opts),
    do: Error.unwrap!(pyeval(env_or_interpreter, code_or_vars_or_opts))

  @doc """
  Calls a Python function by its name, and returns `{:ok, value}` or `{:error, %Snex.Error{}}`.

  `function` is a dotted path. Its first name is looked up in the environment, then among Python's built-in functions;
  otherwise it is the name of a module, which is imported. The other names are attributes. If an interpreter is given,
  names are looked up in its root environment. `{module, path}` starts at a module, whatever the environment contains.
  An awaitable result is awaited. `eval`, `exec`, `globals`, `locals`, `vars` and `dir` refer to the variables of the
  environment.

  #{Options.documentation(CallOptions.call())}

  It can call functions of modules, built-in functions, and functions that the environment defines:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.call(py, "math.sqrt", [16])
      {:ok, 4.0}
      iex> Snex.call(py, "sorted", [["b", "C", "a"]], kwargs: [reverse: true])
      {:ok, ["b", "a", "C"]}

      iex> script = "def greet(name): return f'Hello {name}'"
      iex> {:ok, py} = Snex.Interpreter.start_link(init_script: script)
      iex> Snex.call(py, "greet", ["Ada"])
      {:ok, "Hello Ada"}

  A value that has no form in Elixir stays in Python, and a `Snex.Object` refers to it:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, %Snex.Object{} = word} = Snex.call(py, "re.compile", ["[a-z]+"])
      iex> Snex.call(py, "re.findall", [word, "one, two"])
      {:ok, ["one", "two"]}

  If a path leads nowhere, the error says which part is wrong, and suggests similar names:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:error, error} = Snex.call(py, "math.sqr", [16])
      iex> error.reason |> String.split(". ")
      ["'math.sqr' leads nowhere: module 'math' has no attribute 'sqr'",
       "Did you mean: 'sqrt', 'isqrt'?"]
  """
  @spec call(Env.t() | Interpreter.server(), path(), [term()], [call_opt()]) ::
          {:ok, term()} | {:error, Error.t()}
  def call(where, function, args \\ [], opts \\ []),
    do: Invoke.call(where, nil, Invoke.path!(function), Invoke.args!(args), CallOptions.call!(opts))

  @doc """
  `call/4` that returns the value itself, and raises the `Snex.Error`.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.call!(py, "math.hypot", [3, 4])
      5.0
  """
  @spec call!(Env.t() | Interpreter.server(), path(), [term()], [call_opt()]) :: term()
  def call!(where, function, args \\ [], opts \\ []), do: Error.unwrap!(call(where, function, args, opts))

  @doc """
  Returns what a dotted path leads to: a variable, an attribute or a constant of a module.

  The result is `{:ok, value}` or `{:error, %Snex.Error{}}`. Paths are those of `call/4`.

  #{Options.documentation(CallOptions.get())}

  It returns variables, and attributes of modules:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(py, %{"x" => [1, 2]})
      iex> Snex.get(env, "x")
      {:ok, [1, 2]}
      iex> {:ok, pi} = Snex.get(env, "math.pi")
      iex> Float.round(pi, 2)
      3.14
  """
  @spec get(Env.t() | Interpreter.server(), path(), [get_opt()]) :: {:ok, term()} | {:error, Error.t()}
  def get(where, path, opts \\ []), do: Invoke.get(where, nil, Invoke.path!(path), CallOptions.get!(opts))

  @doc """
  `get/3` that returns the value itself, and raises the `Snex.Error`.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.get!(py, {"sys", "byteorder"}) in ["little", "big"]
      true
  """
  @spec get!(Env.t() | Interpreter.server(), path(), [get_opt()]) :: term()
  def get!(where, path, opts \\ []), do: Error.unwrap!(get(where, path, opts))

  @doc """
  Calls a Python function once for each element of an enumerable, and returns a list of `{:ok, value}` or
  `{:error, %Snex.Error{}}`, in order.

  Each result is what `call/4` would return for the element: `Snex.map(where, function, elements)` does the same as
  `Enum.map(elements, &Snex.call(where, function, [&1]))` in a fraction of the time, because many elements travel
  together. It is meant for millions of small calls. `function` is a path as in `call/4`, or a callable `Snex.Object`.

  Calls are made one after the other, and an awaitable result is awaited before the next call. Between calls, other
  users of the interpreter get their turn. The calling process enumerates the elements, and is never ahead by more than
  `:demand` elements or 256 KiB.

  With `stream: true`, it returns a stream of the results. Nothing runs before the stream is enumerated, and each
  enumeration starts from the beginning. An enumeration that ends early starts no further calls and cancels those that
  are running.

  Some errors belong to a single element, and the others go on: an exception in Python, a result that cannot be
  returned, or an element that cannot be encoded (`:call_failed`, with the exception as the reason). A timeout or the
  end of the interpreter is the error of all elements that were on their way together; for some of them, the function
  may have been called. Later elements go on if an interpreter has been restarted under the same name. If the whole list
  times out, the remaining elements are not sent, and have the same error.

  #{Options.documentation(CallOptions.map())}

  Raises `ArgumentError` if an argument has the wrong form. Exceptions of the enumerable are raised as they are.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.map(py, "math.sqrt", [16, 25])
      [ok: 4.0, ok: 5.0]
      iex> [{:ok, 2}, {:error, error}, {:ok, 3}] = Snex.map(py, "len", ["ab", nil, "abc"])
      iex> error.reason
      "object of type 'NoneType' has no len()"

  Each call can have several arguments, and arguments that are the same for all calls:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.map(py, "pow", [{2, 10}, [7, -1, 10]], unpack: true)
      [ok: 1024, ok: 3]
      iex> Snex.map(py, "int", ["ff", "10"], kwargs: [base: 16])
      [ok: 255, ok: 16]

  The enumerable can be infinite:

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> numbers = Stream.iterate(1, &(&1 + 1))
      iex> py |> Snex.map("bin", numbers, stream: true) |> Enum.take(2)
      [ok: "0b1", ok: "0b10"]
  """
  @spec map(Env.t() | Interpreter.server(), path() | Object.t(), Enumerable.t(), [map_opt()]) ::
          [{:ok, term()} | {:error, Error.t()}] | Enumerable.t()
  def map(where, function, enumerable, opts \\ []), do: map(where, function, enumerable, opts, nil)

  defp map(where, function, enumerable, opts, fun) do
    {root, path} = if is_struct(function, Object), do: {function, ""}, else: {nil, Invoke.path!(function)}

    case CallOptions.map!(opts) do
      %{stream: true} = opts -> Mapping.stream(where, root, path, enumerable, opts, fun)
      opts -> Mapping.list(where, root, path, enumerable, opts, fun)
    end
  end

  @doc """
  `map/4` that returns the values themselves, and raises the first `Snex.Error`; no further calls are started.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.map!(py, "math.sqrt", [16, 25])
      [4.0, 5.0]
  """
  @spec map!(Env.t() | Interpreter.server(), path() | Object.t(), Enumerable.t(), [map_opt()]) ::
          [term()] | Enumerable.t()
  def map!(where, function, enumerable, opts \\ []),
    do: map(where, function, enumerable, opts, &Error.unwrap!/1)

  @doc """
  Returns an `Enumerable` of the items that Python produces, either by `yield` in the code or from what code or a
  function returns.

  `yield` and `yield from` at the top level of the code make it a generator; it can also use `await`. Without `yield`,
  the value that the code returns is iterated: a generator, an iterator, or any other object that works with `for` or
  `async for`. In the same way, the result of `{function, args}` is iterated, where `function` is a path as in `call/4`;
  `{function, args, kwargs}` adds arguments by name. `vars` is for code only. `vars` and `opts` can each be left out.

  Nothing runs before the stream is enumerated, and each enumeration starts from the beginning. While the consumer keeps
  up, it gets each item as soon as the item is produced. If the consumer falls behind, many items travel together, and
  the generator waits once `:demand` items are on their way. If the enumeration ends early (by `Enum.take/2`, by an
  exception, or because its process or node goes down), the generator is closed, and its `finally` blocks run.

  Exceptions in Python and all other errors are raised as `Snex.Error`, after all earlier items have been consumed.

  #{Options.documentation(CallOptions.stream())}

  Raises `ArgumentError` if an argument has the wrong form, and, during enumeration, for a value that cannot be encoded.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> code = "for n in range(start, 10): yield n * n"
      iex> Snex.stream(py, code, %{"start" => 7}) |> Enum.to_list()
      [49, 64, 81]

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> numbers = Snex.stream(py, {"itertools.count", [1]})
      iex> numbers |> Stream.filter(&(rem(&1, 7) == 0)) |> Enum.take(3)
      [7, 14, 21]
      iex> Snex.stream(py, {"enumerate", [["a", "b"]], start: 1}) |> Enum.to_list()
      [{1, "a"}, {2, "b"}]

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> stream = Snex.stream(py, "yield 1; yield 1 / 0")
      iex> Enum.take(stream, 1)
      [1]
      iex> try do
      ...>   Enum.to_list(stream)
      ...> rescue
      ...>   error in Snex.Error -> error.reason
      ...> end
      "division by zero"
  """
  @spec stream(Env.t() | Interpreter.server(), source(), vars(), [stream_opt()]) :: Enumerable.t()
  def stream(where, source, vars, opts)

  def stream(where, {function, args}, vars, opts), do: stream(where, {function, args, []}, vars, opts)

  def stream(where, {function, args, kwargs}, vars, opts) do
    if vars != %{} do
      raise ArgumentError,
            "variables are only for code; give a function its arguments in {function, args, kwargs}"
    end

    opts = CallOptions.stream!(opts, :auto)
    kwargs = CallOptions.kwargs!(kwargs)

    Invoke.stream(
      where,
      nil,
      Invoke.path!(function),
      Invoke.args!(args),
      Map.put(opts, :kwargs, kwargs),
      & &1
    )
  end

  def stream(where, code, vars, opts) do
    if code == nil, do: raise(ArgumentError, "expected code, or {function, args}, got: nil")
    opts = CallOptions.stream!(opts, :value)
    {code, vars} = {code!(code), vars!(vars)}
    {_interpreter, env_id} = target(where)
    Snex.Stream.new(where, fn -> Request.eval(env_id, code, vars, opts) end, opts, & &1)
  end

  @doc """
  `stream/4` with `vars` or `opts` left out.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.stream(py, "yield from text", %{"text" => "abc"}) |> Enum.join("-")
      "a-b-c"
      iex> Snex.stream(py, {"range", [3]}, demand: 1) |> Enum.sum()
      3
  """
  @spec stream(Env.t() | Interpreter.server(), source(), vars() | [stream_opt()]) :: Enumerable.t()
  def stream(where, source, opts) when is_list(opts), do: stream(where, source, %{}, opts)
  def stream(where, source, vars), do: stream(where, source, vars, [])

  @doc """
  `stream/4` with `vars` and `opts` left out.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> Snex.stream(py, "return 'abc'") |> Enum.to_list()
      ["a", "b", "c"]
  """
  @spec stream(Env.t() | Interpreter.server(), source()) :: Enumerable.t()
  def stream(where, source), do: stream(where, source, %{}, [])

  @doc """
  Makes an environment, and returns `{:ok, %Snex.Env{}}` or `{:error, %Snex.Error{}}`.

  The environment starts as a copy of the interpreter's root environment (the names left by the init script). Names from
  `:from` are added, then `vars`.

  #{Options.documentation(CallOptions.make_env())}

  The interpreter may be on another node; `Snex.Env` explains how long such an environment lives.

  Raises `ArgumentError` for environments of different interpreters, and for `:only` together with `:except`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, old} = Snex.make_env(interpreter, %{"a" => 1, "b" => 2})
      iex> {:ok, new} = Snex.make_env(%{"c" => 3}, from: {old, only: ["b"]})
      iex> Snex.pyeval(new, "return (b, c, 'a' in globals())")
      {:ok, {2, 3, false}}
  """
  @spec make_env(Interpreter.server(), vars(), [make_env_opt()]) ::
          {:ok, Env.t()} | {:error, Error.t()}
  def make_env(interpreter, vars, opts), do: make(interpreter, vars, CallOptions.make_env!(opts))

  # `nil` for the interpreter of the environments.
  defp make(interpreter, vars, opts) do
    where = interpreter || env_of!(opts.from)
    {interpreter, _env_id} = target(where)
    vars = vars!(vars)

    options = %{deadline: Request.deadline(opts.timeout), on_timeout: :leave, output: nil, retry: opts.retry}

    Telemetry.call(:make_env, interpreter, fn ->
      result = Remote.run(interpreter, Env, :make, [opts.from, vars, opts.encoding_opts], options)
      Env.hold(opts.from)
      Error.in_call(result, where, opts.timeout)
    end)
  end

  @doc """
  `make_env/3` with one of `interpreter`, `vars` and `opts` left out.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, one} = Snex.make_env(interpreter, %{"a" => 1})
      iex> {:ok, two} = Snex.make_env(interpreter, from: one)
      iex> {:ok, three} = Snex.make_env(%{"b" => 2}, from: two)
      iex> Snex.pyeval(three, "return (a, b)")
      {:ok, {1, 2}}
  """
  @spec make_env(Interpreter.server() | vars(), vars() | [make_env_opt()]) ::
          {:ok, Env.t()} | {:error, Error.t()}
  def make_env(%{} = vars, opts) when not is_struct(vars) and is_list(opts),
    do: make(nil, vars, CallOptions.make_env!(opts))

  def make_env(interpreter, opts) when is_list(opts), do: make_env(interpreter, %{}, opts)
  def make_env(interpreter, vars), do: make_env(interpreter, vars, [])

  @doc """
  `make_env/3` with an interpreter, or the option `:from`, alone.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link(init_script: "x = 1")
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> {:ok, copy} = Snex.make_env(from: env)
      iex> {Snex.pyeval(copy, "x += 1; return x"), Snex.pyeval(env, "return x")}
      {{:ok, 2}, {:ok, 1}}
  """
  @spec make_env(Interpreter.server() | [make_env_opt()]) :: {:ok, Env.t()} | {:error, Error.t()}
  def make_env(opts) when is_list(opts), do: make(nil, %{}, CallOptions.make_env!(opts))
  def make_env(interpreter), do: make_env(interpreter, %{}, [])

  @doc """
  `make_env/3` that returns the environment itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> env = Snex.make_env!(interpreter, %{"a" => 1, "b" => 2}, [])
      iex> copy = Snex.make_env!(interpreter, %{}, from: {env, only: ["a"]})
      iex> Snex.pyeval!(copy, "return 'a' in globals(), 'b' in globals()")
      {true, false}
  """
  @spec make_env!(Interpreter.server(), vars(), [make_env_opt()]) :: Env.t()
  def make_env!(interpreter, vars, opts), do: Error.unwrap!(make_env(interpreter, vars, opts))

  @doc """
  `make_env/2` that returns the environment itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> env = Snex.make_env!(interpreter, %{"a" => 1})
      iex> Snex.pyeval!(env, "return a")
      1
  """
  @spec make_env!(Interpreter.server() | vars(), vars() | [make_env_opt()]) :: Env.t()
  def make_env!(interpreter_or_vars, vars_or_opts),
    do: Error.unwrap!(make_env(interpreter_or_vars, vars_or_opts))

  @doc """
  `make_env/1` that returns the environment itself, and raises the `Snex.Error`.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> Snex.Env.interpreter(Snex.make_env!(interpreter)) == interpreter
      true
      iex> try do
      ...>   Snex.make_env!(:nobody)
      ...> rescue
      ...>   error in Snex.Error -> error.code
      ...> end
      :call_failed
  """
  @spec make_env!(Interpreter.server() | [make_env_opt()]) :: Env.t()
  def make_env!(interpreter_or_opts), do: Error.unwrap!(make_env(interpreter_or_opts))

  @doc """
  Drops an environment now, rather than when the last reference to it is garbage collected.

  Works from any node. Returns `:ok` even if the environment or its interpreter is already gone.

      iex> {:ok, interpreter} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(interpreter)
      iex> Snex.destroy_env(env)
      :ok
      iex> {:error, error} = Snex.pyeval(env, "return 1")
      iex> error.code
      :env_not_found
  """
  @spec destroy_env(Env.t()) :: :ok
  def destroy_env(%Env{} = env), do: Handle.destroy(env)

  defp target(%Env{} = env), do: {env.interpreter, env.id}
  defp target(interpreter), do: {interpreter, nil}

  defp env_of!([{env, _mode, _names} | _rest]), do: env

  defp env_of!([]) do
    raise ArgumentError, "expected an interpreter, or an environment in the option :from"
  end

  defp code!(code), do: ok!(Arguments.code(code))
  defp vars!(vars), do: ok!(Arguments.vars(vars))

  defp ok!({:ok, value}), do: value
  defp ok!({:error, complaint}), do: raise(ArgumentError, complaint)
end
