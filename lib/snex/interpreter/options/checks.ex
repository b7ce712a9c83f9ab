defmodule Snex.Interpreter.Options.Checks do
  @moduledoc false
  # Checks of single options of `Snex.Interpreter.start_link/1`: `{:ok, value}` as the interpreter wants it, or what is wrong with
  # it. The table in `Snex.Interpreter.Options` says which is whose.

  alias Snex.Arguments
  alias Snex.Code
  alias Snex.Interpreter
  alias Snex.Options
  alias Snex.Os
  alias Snex.Project
  alias Snex.Serde

  # More than any queue holds.
  @no_limit {0xFFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF}

  @most 0xFFFF_FFFF
  @most_bytes 0x7FFF_FFFF_FFFF_FFFF

  @doc false
  @spec max_in_flight(term()) :: {:ok, pos_integer() | :infinity} | {:error, String.t()}
  def max_in_flight(value) do
    if value == :infinity or value in 1..@most,
      do: {:ok, value},
      else: Options.refuse(value, "a positive number or :infinity")
  end

  @doc false
  @spec python(term()) :: {:ok, String.t() | Project.t()} | {:error, String.t()}
  def python(%Project{} = project), do: {:ok, project}

  def python(value),
    do: if(path?(value), do: {:ok, value}, else: Options.refuse(value, "a path or a name as a string"))

  defp path?(value), do: is_binary(value) and value != "" and not String.contains?(value, "\0")

  @doc false
  @spec template(term()) :: {:ok, Interpreter.server()} | {:error, String.t()}
  def template(value) when is_pid(value) or (is_atom(value) and value != nil), do: {:ok, value}
  def template({:global, _name} = value), do: {:ok, value}
  def template({:via, module, _name} = value) when is_atom(module), do: {:ok, value}
  def template({name, node} = value) when is_atom(name) and is_atom(node), do: {:ok, value}
  def template(value), do: Options.refuse(value, "an interpreter: its pid or name")

  @doc false
  @spec wrap_exec(term()) :: {:ok, Interpreter.wrap_exec()} | {:error, String.t()}
  def wrap_exec(value) when is_function(value, 2), do: {:ok, value}
  def wrap_exec({m, f, a} = value) when is_atom(m) and is_atom(f) and is_list(a), do: {:ok, value}

  def wrap_exec(value),
    do: Options.refuse(value, "a function with two arguments or {module, function, args}")

  @doc false
  @spec folder(term()) :: {:ok, Path.t()} | {:error, String.t()}
  def folder(value) do
    # Like the functions of `File`.
    path = if is_list(value), do: IO.chardata_to_string(value), else: value
    if path?(path), do: {:ok, path}, else: Options.refuse(value, "a path")
  rescue
    _not_chardata -> Options.refuse(value, "a path")
  end

  @doc false
  @spec python_path(term()) :: {:ok, [Path.t()]} | {:error, String.t()}
  def python_path(option) do
    folders = List.wrap(option)

    case Enum.reject(folders, &folder?/1) do
      [] -> folders |> Enum.map(&expand/1) |> without_colon()
      [wrong | _] -> Options.refuse(wrong, "a folder, {application, folder}, or a list of these")
    end
  end

  # PYTHONPATH has colons between folders, and no way to write one in a folder's name.
  defp without_colon(folders) do
    case Enum.find(folders, &String.contains?(&1, ":")) do
      nil -> {:ok, folders}
      folder -> Options.refuse(folder, "a path without a colon, which separates folders in PYTHONPATH")
    end
  end

  defp folder?({app, path}), do: is_atom(app) and path?(path)
  defp folder?(path), do: path?(path)

  # Where the application is now: in a release, or in `_build`, where `priv` is a link to the sources.
  defp expand({app, path}), do: Os.app_dir(app, path)
  defp expand(path), do: Path.expand(path)

  @doc false
  @spec init_script(term()) :: {:ok, {Code.t(), map()} | function() | mfa()} | {:error, String.t()}
  def init_script(fun) when is_function(fun, 0), do: {:ok, fun}
  def init_script({m, f, a} = call) when is_atom(m) and is_atom(f) and is_list(a), do: {:ok, call}
  def init_script({code, vars}), do: script(code, vars)
  def init_script(code), do: script(code, %{})

  defp script(code, vars) do
    with {:ok, code} <- Arguments.code(code),
         {:ok, vars} <- Arguments.vars(vars),
         nil <- Arguments.find_bad_name(vars) do
      {:ok, {code, vars}}
    else
      {:ok, name} -> {:error, "cannot be used: " <> Arguments.bad_name(name)}
      {:error, complaint} -> {:error, "cannot be used: " <> complaint}
    end
  end

  @doc false
  @spec encoding(term()) :: {:ok, tuple()}
  def encoding(value), do: {:ok, Serde.options!(value)}

  @doc false
  @spec busy_limits(term()) :: {:ok, {non_neg_integer(), non_neg_integer()}} | {:error, String.t()}
  def busy_limits(:disabled), do: {:ok, @no_limit}

  def busy_limits({low, high}) when low in 0..@most_bytes and high in 0..@most_bytes and low <= high,
    do: {:ok, {low, high}}

  def busy_limits(value), do: Options.refuse(value, "{low, high} in bytes with low <= high, or :disabled")

  @doc false
  @spec on_stuck(term()) :: {:ok, :report | {:restart, non_neg_integer()}} | {:error, String.t()}
  def on_stuck(:report), do: {:ok, :report}
  def on_stuck(:restart), do: {:ok, {:restart, 0}}
  def on_stuck({:restart, patience}) when patience in 0..@most, do: {:ok, {:restart, patience}}
  def on_stuck(value), do: Options.refuse(value, ":report, :restart or {:restart, milliseconds}")

  @doc false
  # As the native code wants it: names as text, the more of them the narrower.
  @spec allow(term()) :: {:ok, nil | [{String.t(), String.t() | nil, arity() | nil}]} | {:error, String.t()}
  def allow(:all), do: {:ok, nil}
  def allow(:none), do: {:ok, []}

  def allow(rules) when is_list(rules) do
    case Enum.reject(rules, &rule?/1) do
      [] -> {:ok, Enum.map(rules, &rule/1)}
      [wrong | _] -> allow(wrong)
    end
  end

  def allow(value) do
    Options.refuse(value, ":all, :none, or a list of Module, {Module, fun} and {Module, fun, arity}")
  end

  defp rule?({module, fun, arity}), do: is_atom(module) and is_atom(fun) and arity in 0..255
  defp rule?({module, fun}), do: is_atom(module) and is_atom(fun)
  defp rule?(module), do: is_atom(module)

  defp rule({module, fun, arity}), do: {to_string(module), to_string(fun), arity}
  defp rule({module, fun}), do: {to_string(module), to_string(fun), nil}
  defp rule(module), do: {to_string(module), nil, nil}
end
