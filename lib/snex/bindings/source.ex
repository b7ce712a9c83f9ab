defmodule Snex.Bindings.Source do
  @moduledoc false
  # From the intermediate form to source code: the one form that modules are compiled from, in a file or not.

  alias Snex.Bindings.Documentation
  alias Snex.Bindings.Plan
  alias Snex.Bindings.Variant

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
    links = Documentation.links(module)

    [
      ["@moduledoc ", heredoc(Documentation.of_module(module, children)), "\n"],
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

  ## Functions

  defp function(function, links) do
    for variant <- function.variants do
      # Documentation belongs to each arity.
      [
        "\n@doc ",
        heredoc(Documentation.of_function(function, variant, links)),
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
      string("Like `#{function.name}/#{arity}`, but returns the value itself or raises the `Snex.Error`."),
      "\n",
      deprecated(function),
      spec(function.name <> "!", variant, :bang),
      definition(function, variant, :bang)
    ]
  end

  defp spec(name, variant, form) do
    types =
      Variant.types(variant) ++ if(variant.opts == :none, do: [], else: [Variant.options_type(variant)])

    value = Variant.result(variant)

    result =
      cond do
        variant.stream? -> "Enumerable.t()"
        form == :plain -> "Snex.Bindings.result(#{value})"
        value == "term()" -> "term()"
        value =~ "Snex.Object.t()" -> value
        true -> value <> " | Snex.Object.t()"
      end

    ["@spec ", name, "(", Enum.join(types, ", "), ") :: ", result, "\n"]
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

  # The list of arguments behind the others is a variable; all else is known here.
  defp takes(variant) do
    known = variant.takes ++ if(variant.shorter, do: [shorter: variant.shorter.takes], else: [])

    parts =
      for {key, value} <- known,
          do: "#{key}: #{inspect(value, limit: :infinity, width: :infinity)}"

    "[#{Enum.join(parts ++ if(variant.rest, do: ["rest: #{variant.rest}"], else: []), ", ")}]"
  end

  ## What the module says of itself

  defp listing(module, children) do
    entries =
      for function <- module.functions do
        arities = function.variants |> Enum.flat_map(&Variant.arities/1) |> Enum.uniq() |> Enum.sort()

        "%{name: #{atom(function.name)}, arities: #{inspect(arities, charlists: :as_lists)}, " <>
          "kind: #{inspect(function.kind)}, python: #{string(function.python)}, summary: #{string(Documentation.first_line(function))}}"
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

  ## Literals

  defp atom(name), do: name |> String.to_atom() |> inspect()

  defp string(text), do: inspect(text, binaries: :as_strings, printable_limit: :infinity)

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
