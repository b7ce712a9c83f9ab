defmodule Mix.Tasks.Snex.Gen.Bindings do
  @shortdoc "Writes bindings of a Python module to a source file"

  @moduledoc """
  Writes the functions that `use Snex.Bindings` defines to a source file, which can be checked in.

  A build then needs no Python to define them.

      mix snex.gen.bindings MyApp.Statistics
      mix snex.gen.bindings MyApp.Statistics --check
      mix snex.gen.bindings MyApp.Statistics \\
        --interpreter MyApp.Python --module statistics --only mean,median

  The first argument is a module with `use Snex.Bindings`, or a module that this task has written; the task then knows
  its options. For any other module, give the options.

    * `--check` - writes nothing, and fails if the file is not up to date
    * `--output` - the file to write. The default is the module's own file, if it has nothing but the `use` in it; for a
      new module, a file in `lib/` with the module's name
    * `--interpreter`, `--module`, `--server` - as in `Snex.Bindings`
    * `--only`, `--except`, `--stream` - names, separated by commas
    * `--submodules` - names, separated by commas, or `true`

  The file is formatted as by `mix format`. It mentions no versions: the same Python packages and options give the same
  bytes.
  """

  use Mix.Task

  alias Mix.Tasks.Format
  alias Snex.Bindings.Definition
  alias Snex.Bindings.File, as: Generated
  alias Snex.Bindings.Options

  @requirements ["compile"]

  @switches [
    check: :boolean,
    output: :string,
    interpreter: :string,
    module: :string,
    server: :string,
    only: :string,
    except: :string,
    stream: :string,
    submodules: :string
  ]

  @impl Mix.Task
  def run(args) do
    case OptionParser.parse(args, strict: @switches) do
      {switches, [name], []} -> generate(Module.concat([name]), switches)
      _other -> Mix.raise("usage: mix snex.gen.bindings Module [OPTIONS]; see mix help snex.gen.bindings")
    end
  end

  defp generate(module, switches) do
    options = options!(module, switches)
    path = switches[:output] || Generated.path!(module)

    case Definition.bodies(module, options) do
      {:ok, bodies, _files} ->
        {formatter, _opts} = Format.formatter_for_file(path)
        text = bodies |> Generated.text(Definition.given(options)) |> formatter.()
        if switches[:check], do: check(path, text, module), else: write(path, text)

      {:error, message} ->
        Mix.raise("no bindings of #{options.module}: #{message}")
    end
  rescue
    error in ArgumentError -> Mix.raise(Exception.message(error))
  end

  defp check(path, text, module) do
    shown = Path.relative_to_cwd(path)

    case File.read(path) do
      {:ok, ^text} -> Mix.shell().info("#{shown} is up to date")
      {:ok, _other} -> Mix.raise("#{shown} is out of date: mix snex.gen.bindings #{inspect(module)}")
      {:error, _} -> Mix.raise("there is no file #{shown}: mix snex.gen.bindings #{inspect(module)}")
    end
  end

  defp write(path, text) do
    if File.exists?(path) and not Generated.replaceable?(File.read!(path)) do
      Mix.raise(
        "#{Path.relative_to_cwd(path)} contains more than `use Snex.Bindings`. Move the rest elsewhere, or give another file with --output"
      )
    end

    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
    Mix.shell().info("* wrote #{Path.relative_to_cwd(path)}")
  end

  defp options!(module, switches) do
    given = for {name, value} <- switches, name not in [:check, :output], do: {name, option(name, value)}
    Options.check!(Keyword.merge(known(module), given))
  end

  # Those that the compiled module was made with.
  defp known(module) do
    with {:module, ^module} <- Code.ensure_loaded(module),
         options when is_list(options) <- module.__info__(:attributes)[:snex_bindings],
         do: options,
         else: (_ -> [])
  end

  defp option(name, value) when name in [:interpreter, :server], do: Module.concat([value])
  defp option(:module, value), do: value
  defp option(:submodules, value) when value in ["true", "false"], do: value == "true"
  defp option(_names, value), do: String.split(value, ",", trim: true)
end
