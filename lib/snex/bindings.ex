defmodule Snex.Bindings do
  alias Snex.Bindings.Definition
  alias Snex.Bindings.Options

  @moduledoc """
  Python modules as Elixir modules: `use Snex.Bindings` defines a function for each function of a Python module.

      defmodule MyApp.Statistics do
        use Snex.Bindings,
          interpreter: MyApp.Python,
          module: "statistics",
          only: ~w[mean median NormalDist]
      end

      {:ok, 2} = MyApp.Statistics.mean([1, 2, 3])
      2 = MyApp.Statistics.mean!([1, 2, 3])
      {:ok, dist} = MyApp.Statistics.NormalDist.new(mu: 0, sigma: 1)
      {:ok, p} = MyApp.Statistics.NormalDist.cdf(dist, 1.96)

  Editors then complete the names and show the documentation, and the compiler warns about functions that don't exist.
  [Bindings](bindings.md) is the guide.

  #{Snex.Options.documentation(Options.table())}

  `:module` and `:interpreter` are required. When the module is compiled, the Python of the interpreter's project lists
  the functions. This happens again when the project, its lock file, the options or a file of a local package changes.
  `mix snex.gen.bindings` writes the same functions to a source file.

  ## Functions

  | Python | Elixir |
  |---|---|
  | function, class method, static method | a function over `Snex.call/4` |
  | class, including nested classes | a module below this one, with `new` for its constructor, which returns a `Snex.Object` |
  | method | a function in the module of the class, whose first argument is the object |
  | property | a function in the module of the class, with the object as its argument |
  | constant | a function without arguments |
  | submodule (with `:submodules`) | a module below this one |

  Parameters without defaults are arguments. All others (those with defaults, and keyword-only parameters) are options
  in a final keyword list, under their names. A parameter `*args` is an argument, a list, after the others. If Python
  doesn't report the parameters of a function, the function takes `args`, a list, and `kwargs`, a keyword list or map.

  A function with overloads becomes one function for each number of arguments. If there are `f(a)` and `f(a, b)`, both
  with options, then a keyword list in place of `b` is taken as the options of `f(a)`. To pass it as a value, add
  options after it: `f(a, [x: 1], snex: [])`.

  Each function returns `{:ok, value}` or `{:error, %Snex.Error{}}`; its variant with a `!` returns the value itself or
  raises the error. Functions named by `:stream` return a stream.

  A result whose type is a class with bindings in the same module stays in Python, as a `Snex.Object`. All other results
  are returned as with `returns: :auto`; see `Snex.call/4`.

  ## Options of the functions

  In addition to its own parameters, each function takes

    * `server:` - the interpreter, environment or pool to call. It has no effect for methods and properties, which run
      where the object is
    * the options of `Snex.call/4`: `timeout:`, `returns:`, `run:` and so on. If the Python function has a parameter of
      the same name, the name refers to the parameter
    * `snex:` - a keyword list of these options, for the latter case: `snex: [timeout: 60_000]`
    * `kwargs:` - arguments by name, as in `Snex.call/4`

  ## Names

  A name that Elixir doesn't allow is changed as follows:

    * in function names, capitals become lower-case letters: `HTTP_OK` becomes `http_ok`, and `DataFrame`, if it is a
      function, becomes `data_frame`;
    * in module names, the first letter and each letter after an underscore become capitals, and underscores, including
      leading ones, are removed: `ndarray` becomes `Ndarray`, and `dict_keys` becomes `DictKeys`;
    * a character that Elixir doesn't allow becomes an underscore;
    * a name that has a special meaning in Elixir gets an underscore at its end: `end` becomes `end_`, and `case`
      becomes `case_`. The same is done for a method `new` and a function `search` with one argument.

  If two names would become the same, that is a compile error, which names both. Leave one of them out with `:except`.

  The module can also define functions of its own. If a generated function has the name of a `Kernel` function, such as
  `max`, call `Kernel`'s function by its full name in that module: `Kernel.max(1, 2)`.
  """

  @typedoc "The result of a function."
  @type result(value) :: {:ok, value | Snex.Object.t()} | {:error, Snex.Error.t()}

  @typedoc "A Python `float`."
  @type real() :: number() | :inf | :"-inf" | :nan

  @typedoc "Options of all functions."
  @type opt() ::
          {:server, term()}
          | {:kwargs, keyword() | map()}
          | {:snex, keyword()}
          | Snex.call_opt()
          | Snex.stream_opt()

  @typedoc """
  What `__functions__/0` returns for a function: its name and arities, its kind and name in Python, and the first line
  of its documentation.
  """
  @type function_info() :: %{
          name: atom(),
          arities: [arity()],
          kind: :function | :constructor | :static | :method | :property | :constant,
          python: String.t(),
          summary: String.t()
        }

  @type option() :: unquote(Snex.Options.spec(Options.table()))

  @doc false
  defmacro __using__(opts) do
    quote do
      Snex.Bindings.define!(unquote(opts), __ENV__)
    end
  end

  @doc false
  # In the body of the module that `env` is about.
  @spec define!(keyword(), Macro.Env.t()) :: :ok
  def define!(opts, env) do
    options = check!(opts, env)

    case Definition.bodies(env.module, options) do
      {:ok, [{_module, body} | others], files} ->
        Module.register_attribute(env.module, :snex_bindings, persist: true)
        Module.put_attribute(env.module, :snex_bindings, Definition.given(options))
        Module.register_attribute(env.module, :external_resource, accumulate: true)
        for file <- files, do: Module.put_attribute(env.module, :external_resource, file)
        # Neither aliases nor imports of the user's module.
        place = [file: env.file, line: env.line]
        own_doc = Module.get_attribute(env.module, :moduledoc)
        Code.eval_quoted(quoted(body, env), [], Code.env_for_eval([module: env.module] ++ place))
        if own_doc != nil, do: Module.put_attribute(env.module, :moduledoc, {env.line, doc_text(own_doc)})

        each(others, fn {module, body} -> Module.create(module, quoted(body, env), place) end)
        :ok

      {:error, message} ->
        fail(env, message)
    end
  end

  # Beside each other where the compiler has a say, as in a Mix project.
  defp each(parts, fun) do
    if Code.can_await_module_compilation?(),
      do: Kernel.ParallelCompiler.pmap(parts, fun),
      else: Enum.each(parts, fun)
  end

  defp doc_text({_line, text}), do: text
  defp doc_text(text), do: text

  # All of it stands at the line of the `use`.
  defp quoted(body, env) do
    body
    |> Code.string_to_quoted!(file: env.file)
    |> Macro.prewalk(&Macro.update_meta(&1, fn meta -> Keyword.put(meta, :line, env.line) end))
  end

  defp check!(opts, env) do
    Options.check!(opts)
  rescue
    error in ArgumentError -> fail(env, "use Snex.Bindings: " <> Exception.message(error))
  end

  @spec fail(Macro.Env.t(), String.t()) :: no_return()
  defp fail(env, message), do: raise(CompileError, file: env.file, line: env.line, description: message)

  @doc """
  Returns the functions of a generated module, and of the modules below it, whose name or first line of documentation
  contains the given text.

  Each function is returned with its module. The search ignores case.
  """
  @spec search(module(), String.t()) :: [{module(), function_info()}]
  def search(module, text) do
    wanted = String.downcase(text)

    for one <- [module | module.__classes__()],
        info <- one.__functions__(),
        Enum.any?(
          [info.python, Atom.to_string(info.name), info.summary],
          &(&1 |> String.downcase() |> String.contains?(wanted))
        ),
        do: {one, info}
  end
end
