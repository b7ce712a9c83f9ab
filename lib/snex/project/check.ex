defmodule Snex.Project.Check do
  # Looks for mistakes in a pyproject.toml before uv is started, and tells where in the user's files they are.
  #
  # The text of an inline project is a value that has no line any more: it is looked for in the file that the module is
  # compiled from.
  @moduledoc false

  alias Snex.{Native, Project}

  @typedoc "A mistake in the TOML: its line and column, from 1, and what is wrong."
  @type problem :: {line :: pos_integer(), column :: pos_integer(), message :: String.t()}

  # The keys that there are (PEP 621, 639, 735, 794). Other tools have theirs below [tool].
  @known %{
    "" => ~w(build-system dependency-groups project tool),
    "project" =>
      ~w(authors classifiers dependencies description dynamic entry-points gui-scripts import-names import-namespaces) ++
        ~w(keywords license license-files maintainers name optional-dependencies readme requires-python scripts urls version)
  }

  @doc """
  All mistakes that can be found without uv.
  """
  @spec check(Project.source()) :: :ok | {:error, [problem(), ...]}
  def check(source) do
    case source |> text() |> Native.project_read() do
      %{problems: []} -> :ok
      %{problems: problems} -> {:error, problems}
    end
  end

  @doc """
  The text of the project's pyproject.toml.
  """
  @spec text(Project.source()) :: binary()
  def text({:toml, toml}), do: toml
  def text({:path, path}), do: path |> Path.join("pyproject.toml") |> File.read!()

  @doc """
  Keys that mean nothing to uv, such as a misspelt `dependencies`: no error, because a later standard may know them.
  """
  @spec unknown_keys(Project.source()) :: [problem()]
  def unknown_keys(source) do
    for {line, column, {table, key}} <- (source |> text() |> Native.project_read()).keys,
        key not in @known[table] do
      place = if table == "", do: "at the top level", else: "in [#{table}]"
      nearest = Enum.max_by(@known[table], &String.jaro_distance(&1, key))
      advice = if String.jaro_distance(nearest, key) > 0.77, do: ", did you mean `#{nearest}`?", else: ""
      {line, column, "`#{key}` #{place} is unknown, and has no effect#{advice}"}
    end
  end

  @doc """
  Whether the text says how the project's own package is built.
  """
  @spec builds?(Project.source()) :: boolean()
  def builds?(source) do
    Enum.any?((source |> text() |> Native.project_read()).keys, fn {_line, _column, key} ->
      key == {"", "build-system"}
    end)
  end

  @doc """
  The place in the text that uv's words are about, if they name one.
  """
  @spec place_of(Project.source(), String.t()) :: {line :: pos_integer(), column :: pos_integer()} | nil
  def place_of(source, message) do
    # uv names the file as it was called in: one of another project has a folder.
    with [_, line, column] <-
           Regex.run(~r/parse: `?pyproject\.toml`?\n.*TOML parse error at line (\d+), column (\d+)/, message) do
      {String.to_integer(line), String.to_integer(column)}
    else
      nil ->
        quoted = for [_, text] <- Regex.scan(~r/`([^`\n]+)`/, message), do: text
        dependencies = (source |> text() |> Native.project_read()).dependencies
        Enum.find_value(dependencies, fn {line, column, text} -> if text in quoted, do: {line, column} end)
    end
  end

  @doc """
  The mistakes as lines, with the places that they have in the TOML.
  """
  @spec describe([problem()]) :: String.t()
  def describe(problems) do
    show(for {line, column, message} <- problems, do: {place("pyproject_toml", line, column), message})
  end

  @doc """
  Raises a `CompileError` with all mistakes, at the place of the first one, if there are any. Warns of unknown keys.
  """
  @spec check!(Project.source(), Macro.Env.t()) :: :ok
  def check!(source, env) do
    with {:error, problems} <- check(source) do
      {file, line, places} = locate(source, problems, env)

      raise CompileError,
        file: file,
        line: line,
        description: """
        the Python project of #{inspect(env.module)} cannot be installed:

        #{show(places)}
        """
    end

    for {_, _, message} = problem <- unknown_keys(source) do
      {file, line, _places} = locate(source, [problem], env)
      IO.warn(message, file: file, line: line)
    end

    :ok
  end

  @doc """
  Raises a `CompileError` with uv's words, at the place that they are about if there is one.
  """
  @spec refused!(Project.source(), String.t(), Macro.Env.t()) :: no_return()
  def refused!(source, message, env) do
    {file, line, about} =
      case place_of(source, message) do
        nil ->
          {env.file, env.line, ""}

        {line, column} ->
          {file, line, [{place, _}]} = locate(source, [{line, column, ""}], env)
          {file, line, " (see #{place})"}
      end

    raise CompileError,
      file: file,
      line: line,
      description: "the Python environment of #{inspect(env.module)} could not be made#{about}: #{message}"
  end

  defp show(places), do: Enum.map_join(places, "\n", fn {place, message} -> "    #{place}: #{message}" end)

  # The file and line of the first, and for each its place and message.
  defp locate({:path, path}, [{line, _, _} | _] = problems, _env) do
    file = Path.join(path, "pyproject.toml")
    {file, line, for({line, column, message} <- problems, do: {place(file, line, column), message})}
  end

  defp locate({:toml, toml}, [{line, _, _} | _] = problems, env) do
    case find(toml, env) do
      {first, indentation} ->
        places =
          for {line, column, message} <- problems,
              do: {place(env.file, first + line - 1, column + indentation), message}

        {env.file, first + line - 1, places}

      nil ->
        {env.file, env.line,
         for({line, column, message} <- problems, do: {place("pyproject_toml", line, column), message})}
    end
  end

  defp place(file, line, column), do: "#{Path.relative_to_cwd(file)}:#{line}:#{column}"

  # The line of the file that the text begins at, and by how much it is indented there; nil when it is written in another
  # way or place. Where the text has interpolations or escapes, not all lines are alike: the best of the places counts,
  # and of equals the first that is not before the `use`.
  defp find(toml, env) do
    with {:ok, file} <- File.read(env.file) do
      wanted = toml |> lines() |> Enum.map(&String.trim/1)
      # As heredocs have it, in which an empty line has no indentation either.
      telling = Enum.count(wanted, &(&1 != ""))

      {score, first, there} =
        file
        |> lines()
        |> places()
        |> Enum.map(fn {there, first} -> {score(wanted, there), first, there} end)
        |> Enum.max_by(fn {score, first, _} -> {score, first >= env.line, -first} end)

      if telling > 0 and score * 2 > telling, do: {first, indentation(lines(toml), there)}
    else
      _ -> nil
    end
  end

  defp lines(text), do: String.split(text, ["\r\n", "\n"])

  # Each line with those behind it, and its number.
  defp places(lines), do: lines |> Stream.iterate(&tl/1) |> Enum.take(length(lines)) |> Enum.with_index(1)

  defp score(wanted, there) do
    Enum.zip_reduce(wanted, there, 0, fn
      "", _line, score -> score
      text, line, score -> if String.trim(line) == text, do: score + 1, else: score
    end)
  end

  # What a heredoc leaves out of each line.
  defp indentation(wanted, there) do
    {text, line} =
      wanted
      |> Enum.zip(there)
      |> Enum.find(fn {text, line} -> String.trim(text) != "" and String.trim(text) == String.trim(line) end)

    leading(line) - leading(text)
  end

  defp leading(line), do: String.length(line) - String.length(String.trim_leading(line))
end
