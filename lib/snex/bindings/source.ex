defmodule Snex.Bindings.Source do
  @moduledoc false
  # From the intermediate form to source code: the one form that modules are compiled from, in a file or not.

  alias Snex.Bindings.Plan
  alias Snex.Bindings.Plan.Function
  alias Snex.Bindings.Plan.Variant

  @type part() :: {module(), body :: String.t()}

  @doc """
  The body of each module. `server` is what its functions call by default.
  """
  @spec bodies([Plan.t()], term()) :: [part()]
  def bodies([main | _] = modules, server) do
    below = Enum.group_by(tl(modules), &parent(&1))

    for module <- modules do
      children = if module == main, do: tl(modules), else: Map.get(below, module.module, [])
      {module.module, IO.iodata_to_binary(body(module, children, server, module == main))}
    end
  end

  # Of a class: its module, which may be a submodule.
  defp parent(module), do: module.module |> Module.split() |> Enum.drop(-1) |> Module.concat()

  defp body(module, children, server, main?) do
    links = links(module)

    [
      moduledoc(module, children),
      if(module.deprecated, do: ["@moduledoc deprecated: ", string(module.deprecated), "\n"], else: []),
      if(Enum.any?(module.functions, &(&1.kind not in [:method, :property])),
        do: ["\n@server ", inspect(server, limit: :infinity), "\n"],
        else: []
      ),
      Enum.map(module.functions, &function(&1, links)),
      listing(module, children),
      if(main?, do: search(), else: [])
    ]
  end

  defp moduledoc(module, children) do
    kind = if module.class?, do: "class", else: "module"
    own = module.doc || "The #{kind} `#{module.python}` of Python."
    classes = for child <- children, do: "  * `#{inspect(child.module)}` - `#{child.python}`\n"

    [
      "@moduledoc ",
      heredoc([
        own,
        "\n\nPython's #{kind} `#{module.python}`; see `Snex.Bindings` for how its functions are called.\n",
        if(classes == [], do: [], else: ["\n## Modules\n\n", classes])
      ]),
      "\n"
    ]
  end

  ## Functions

  defp function(function, links) do
    for variant <- function.variants do
      # Documentation belongs to each arity.
      [
        "\n@doc ",
        heredoc(documentation(function, variant, links)),
        "\n",
        deprecated(function),
        spec(function.name, variant, :plain),
        definition(function, variant, :plain),
        if(variant.stream?, do: [], else: bang(function, variant))
      ]
    end
  end

  defp deprecated(%{deprecated: nil}), do: []
  defp deprecated(%{deprecated: text}), do: ["@doc deprecated: ", string(text), "\n"]

  defp bang(function, variant) do
    arity = length(variant.args) + if(variant.opts == :none, do: 0, else: 1)

    [
      "\n@doc ",
      string("As `#{function.name}/#{arity}`, and returns the value itself or raises the `Snex.Error`."),
      "\n",
      deprecated(function),
      spec(function.name <> "!", variant, :bang),
      definition(function, variant, :bang)
    ]
  end

  defp spec(name, variant, form) do
    types =
      Enum.map(variant.args, &elem(&1, 1)) ++ if(variant.opts == :none, do: [], else: [options_type(variant)])

    result =
      cond do
        variant.stream? -> "Enumerable.t()"
        form == :plain -> "Snex.Bindings.result(#{variant.result})"
        variant.result == "term()" -> "term()"
        variant.result =~ "Snex.Object.t()" -> variant.result
        true -> variant.result <> " | Snex.Object.t()"
      end

    ["@spec ", name, "(", Enum.join(types, ", "), ") :: ", result, "\n"]
  end

  defp options_type(variant) do
    if variant.takes[:any] || variant.unknown? do
      "keyword()"
    else
      named = Enum.map(variant.options, fn {name, type} -> "{#{atom(name)}, #{type}}" end)
      "[#{Enum.join(named ++ ["Snex.Bindings.opt()"], " | ")}]"
    end
  end

  defp definition(function, variant, form) do
    {name, call} = if form == :bang, do: {function.name <> "!", "!"}, else: {function.name, ""}

    [
      "def ",
      name,
      "(",
      parameters(variant),
      "), do: Snex.Bindings.Call.",
      call(function, variant, call),
      "\n"
    ]
  end

  defp parameters(%Variant{unknown?: true, args: args}) do
    {object, [_args, _kwargs]} = Enum.split(args, -2)
    Enum.join(Enum.map(object, &elem(&1, 0)) ++ ["args \\\\ []", "kwargs \\\\ []", "opts \\\\ []"], ", ")
  end

  defp parameters(variant) do
    opts = %{optional: ["opts \\\\ []"], required: ["opts"], none: []}[variant.opts]
    Enum.join(Enum.map(variant.args, &elem(&1, 0)) ++ opts, ", ")
  end

  defp call(%{kind: :constant} = function, _variant, bang),
    do: "constant#{bang}(@server, #{inspect(function.path)}, opts)"

  defp call(%{kind: :property} = function, variant, bang),
    do: "property#{bang}(object, #{inspect(function.path)}, opts, #{takes(variant)})"

  defp call(%{kind: kind} = function, variant, bang) do
    method? = kind == :method
    variables = Enum.map(variant.args, &elem(&1, 0))
    {target, variables} = if method?, do: {hd(variables), tl(variables)}, else: {"@server", variables}
    opts = if variant.opts == :none, do: "[]", else: "opts"

    cond do
      variant.unknown? and variant.stream? ->
        "#{if method?, do: "stream_method", else: "stream"}(#{target}, #{inspect(function.path)}, args, [{:kwargs, kwargs} | opts], [])"

      variant.unknown? ->
        "#{if method?, do: "unknown_method", else: "unknown"}#{bang}(#{target}, #{inspect(function.path)}, args, kwargs, opts, #{takes(variant)})"

      true ->
        name =
          if variant.stream?,
            do: if(method?, do: "stream_method", else: "stream"),
            else: if(method?, do: "method", else: "function")

        arguments = Enum.reject(variables, &(&1 == variant.rest))

        "#{name}#{bang}(#{target}, #{inspect(function.path)}, [#{Enum.join(arguments, ", ")}], #{opts}, #{takes(variant)})"
    end
  end

  defp takes(variant) do
    parts =
      for {key, value} <- variant.takes do
        value = if is_list(value), do: "[#{Enum.map_join(value, ", ", &atom/1)}]", else: inspect(value)
        "#{key}: #{value}"
      end

    "[#{Enum.join(parts ++ if(variant.rest, do: ["rest: #{variant.rest}"], else: []), ", ")}]"
  end

  ## Documentation

  defp documentation(function, variant, links) do
    text = link(function.doc || summary(function), links)

    [
      text,
      "\n\n",
      note(function, variant),
      if(function.deprecated, do: ["\nDeprecated in Python: ", function.deprecated, "\n"], else: [])
    ]
  end

  defp summary(%{kind: :constant} = function), do: "The constant `#{function.python}`."
  defp summary(%{kind: :property} = function), do: "The property `#{function.python}`."
  defp summary(%{kind: :constructor} = function), do: "Makes an object of the class `#{function.python}`."
  defp summary(function), do: "Calls `#{function.python}`."

  defp note(%{kind: :constant, value: nil}, _variant), do: []

  defp note(%{kind: :constant} = function, _variant),
    do: ["In Python: `", code("#{function.python} = #{function.value}"), "`\n"]

  defp note(%{kind: :property}, _variant), do: []

  defp note(function, %{unknown?: true}),
    do: [
      "Python doesn't tell the parameters of `#{function.python}`: `args` are given by position, `kwargs` by name.\n"
    ]

  defp note(function, _variant) do
    shown = function.signatures |> Enum.map(&signature(function, &1)) |> Enum.uniq()
    ["In Python:\n\n```python\n", Enum.intersperse(shown, "\n"), "\n```\n"]
  end

  @doc """
  How a function is called in Python.
  """
  @spec signature(Function.t(), map()) :: String.t()
  def signature(function, %{"parameters" => parameters}) do
    positional_only = Enum.count(parameters, &(&1["kind"] == "positional_only"))

    star? =
      Enum.any?(parameters, &(&1["kind"] == "keyword")) and not Enum.any?(parameters, &(&1["kind"] == "rest"))

    shown =
      parameters
      |> Enum.with_index(1)
      |> Enum.flat_map(fn {one, index} ->
        first_keyword? =
          star? and one["kind"] == "keyword" and Enum.find(parameters, &(&1["kind"] == "keyword")) == one

        if(first_keyword?, do: ["*"], else: []) ++
          [parameter(one)] ++ if(index == positional_only, do: ["/"], else: [])
      end)

    "#{function.python}(#{Enum.join(shown, ", ")})"
  end

  defp parameter(%{"kind" => "rest", "name" => name}), do: "*" <> name
  defp parameter(%{"kind" => "any_keyword", "name" => name}), do: "**" <> name
  defp parameter(%{"default" => nil, "name" => name}), do: name
  defp parameter(%{"default" => default, "name" => name}), do: "#{name}=#{default}"

  # Functions of the same module, as ExDoc links them.
  defp links(module) do
    for function <- module.functions, into: %{} do
      arity = function.variants |> Enum.flat_map(&Plan.arities/1) |> Enum.max()
      {function.python |> String.split(".") |> List.last(), "#{function.name}/#{arity}"}
    end
  end

  defp link(text, links) do
    Regex.replace(~r/`((?:\w+\.)*)(\w+)\(\)`/u, text, fn all, _prefix, name ->
      case links do
        %{^name => target} -> "`#{target}`"
        _unknown -> all
      end
    end)
  end

  ## What the module says of itself

  defp listing(module, children) do
    entries =
      for function <- module.functions do
        arities = function.variants |> Enum.flat_map(&Plan.arities/1) |> Enum.uniq() |> Enum.sort()

        "%{name: #{atom(function.name)}, arities: #{inspect(arities, charlists: :as_lists)}, " <>
          "kind: #{inspect(function.kind)}, python: #{string(function.python)}, summary: #{string(first_line(function))}}"
      end

    [
      "\n@functions [\n  ",
      Enum.intersperse(entries, ",\n  "),
      "\n]\n\n",
      "@doc \"Returns the functions of this module; see `Snex.Bindings`.\"\n",
      "@spec __functions__() :: [Snex.Bindings.function_info()]\n",
      "def __functions__, do: @functions\n\n",
      "@doc \"Returns the modules below this one.\"\n",
      "@spec __classes__() :: [module()]\n",
      "def __classes__, do: [",
      Enum.map_intersperse(children, ", ", &inspect(&1.module)),
      "]\n"
    ]
  end

  defp search do
    """

    @doc "Returns the functions of this module and those below it that have a text in their names or summaries."
    @spec search(String.t()) :: [{module(), Snex.Bindings.function_info()}]
    def search(text), do: Snex.Bindings.search(__MODULE__, text)
    """
  end

  defp first_line(function) do
    (function.doc || summary(function))
    |> String.split("\n", trim: true)
    |> Enum.find(summary(function), &(not String.starts_with?(&1, ["```", "#"])))
    |> String.slice(0, 200)
  end

  ## Literals

  defp atom(name), do: name |> String.to_atom() |> inspect()

  defp string(text), do: inspect(text, binaries: :as_strings, printable_limit: :infinity)

  defp code(text), do: String.replace(text, "`", "'")

  defp heredoc(text) do
    escaped =
      text
      |> IO.iodata_to_binary()
      |> String.trim()
      |> String.replace("\\", "\\\\")
      |> String.replace("\"\"\"", "\\\"\\\"\\\"")
      |> String.replace("\#{", "\\\#{")
      |> String.replace(
        ~r/[\x00-\x08\x0b-\x1f\x7f\x{85}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}]/u,
        fn <<char::utf8>> ->
          "\\u{#{Integer.to_string(char, 16)}}"
        end
      )

    ["\"\"\"\n", escaped, "\n\"\"\""]
  end
end
