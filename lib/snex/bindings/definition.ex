defmodule Snex.Bindings.Definition do
  @moduledoc false
  # From the options of `use Snex.Bindings` to the bodies of modules, by way of Python or of what is kept from the last time.

  alias Snex.Bindings.Cache
  alias Snex.Bindings.Introspection
  alias Snex.Bindings.Options
  alias Snex.Bindings.Plan
  alias Snex.Bindings.Source
  alias Snex.Project

  @doc """
  The bodies of the modules, the first one being that of `module`, with the files of Python that they depend on.
  """
  @spec bodies(module(), map()) :: {:ok, [Source.part()], files :: [Path.t()]} | {:error, String.t()}
  def bodies(module, options) do
    with {:ok, project} <- project(options.interpreter) do
      case Cache.fetch(project, module, options) do
        {:ok, bodies, files} -> {:ok, bodies, files}
        :error -> generate(project, module, options)
      end
    end
  end

  defp generate(project, module, options) do
    with {:ok, answer} <- Introspection.run(project, options),
         :ok <- known(answer, options),
         :ok <- imported(answer, options),
         {:ok, plan} <- Plan.new(module, answer, options.stream) do
      bodies = Source.bodies(plan, options.server)

      # Next time the documentation may come out better.
      if answer["complaint"] == nil and not answer["plain_docs"],
        do: Cache.store(project, module, options, bodies, answer["files"]),
        else: warn_of_plain_docs(module, answer["complaint"])

      {:ok, bodies, answer["files"]}
    end
  end

  @doc """
  The project of an interpreter's module, with its environment made.
  """
  @spec project(module()) :: {:ok, Project.t()} | {:error, String.t()}
  def project(interpreter) do
    with {:module, ^interpreter} <- Code.ensure_compiled(interpreter),
         [%Project{} = project] <- interpreter.__info__(:attributes)[:snex_project],
         :ok <- Project.install(project) do
      {:ok, project}
    else
      {:error, message} when is_binary(message) ->
        {:error, "the Python environment of #{inspect(interpreter)} could not be made: #{message}"}

      {:error, _reason} ->
        {:error, "option :interpreter: there is no module #{inspect(interpreter)}"}

      _none ->
        {:error,
         "option :interpreter: #{inspect(interpreter)} does not `use Snex.Interpreter` with a project"}
    end
  end

  defp known(%{"unknown" => []}, _options), do: :ok

  defp known(%{"unknown" => [[name, near] | _]}, options) do
    hint = if near, do: ", did you mean #{inspect(near)}?"
    {:error, "option :only: Python's module #{options.module} has no #{inspect(name)}#{hint}"}
  end

  # A submodule that is named has to be there. Of all that there are, some may want packages that aren't installed.
  defp imported(%{"failed" => []}, _options), do: :ok

  defp imported(%{"failed" => failed}, %{submodules: true}) do
    for {name, traceback} <- Enum.map(failed, &List.to_tuple/1) do
      reason = traceback |> String.trim() |> String.split("\n") |> List.last()
      IO.warn("#{name} is left out, because Python can't import it: #{reason}", [])
    end

    :ok
  end

  defp imported(%{"failed" => [[name, traceback] | _]}, _options),
    do: {:error, "Python can't import #{name}:\n\n#{Introspection.indent(traceback)}"}

  defp warn_of_plain_docs(module, complaint) do
    IO.warn(
      "the documentation of #{inspect(module)} is shown as it is in Python, and types are taken from annotations alone: the packages that " <>
        "read docstrings could not be installed#{if complaint, do: ": " <> complaint}",
      []
    )
  end

  @doc """
  The options that generated modules carry, for `mix snex.gen.bindings`.
  """
  @spec given(map()) :: keyword()
  def given(options) do
    for {name, _entry} <- Options.table(),
        value = Map.fetch!(options, name),
        value not in [nil, [], false] and not (name == :server and value == options.interpreter),
        do: {name, value}
  end
end
