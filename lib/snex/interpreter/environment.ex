defmodule Snex.Interpreter.Environment do
  @moduledoc false
  # The option `:environment`. Its values may be secrets: no complaint shows them, and those that functions return are known
  # only to the process that starts Python.

  alias Snex.Interpreter

  @doc """
  Checks what can be checked before the functions are called. What the system has no way to pass on is refused here, where it
  can be named.
  """
  @spec check(term()) ::
          {:ok, Interpreter.variables() | {:only, Interpreter.variables()}} | {:error, String.t()}
  def check({:only, variables}) when is_map(variables) and not is_struct(variables) do
    with {:ok, variables} <- check(variables), do: {:ok, {:only, variables}}
  end

  def check(variables) when is_map(variables) and not is_struct(variables) do
    case Enum.find_value(variables, fn {name, value} -> wrong_name(name) || wrong_value(name, value) end) do
      nil -> {:ok, variables}
      complaint -> {:error, complaint}
    end
  end

  def check(_other), do: {:error, "has to be a map of variables or {:only, map}"}

  defp wrong_name(name) when not is_binary(name),
    do: "has the name #{inspect(name)}, which has to be a string"

  defp wrong_name(name) do
    if name == "" or String.contains?(name, ["=", "\0"]),
      do: "has the name #{inspect(name)}, which no environment variable can have"
  end

  defp wrong_value(_name, value) when is_nil(value) or is_function(value, 0), do: nil
  defp wrong_value(_name, {m, f, a}) when is_atom(m) and is_atom(f) and is_list(a), do: nil

  defp wrong_value(name, value) when is_binary(value),
    do: if(String.contains?(value, "\0"), do: "has a NUL in the value of #{inspect(name)}")

  defp wrong_value(name, _value) do
    "has a value for #{inspect(name)} that is neither a string, nil, nor a function without arguments or {module, function, args}"
  end

  @doc """
  What is given, with the values that functions return, and all variables for Python: those of the VM as well unless they are
  withheld.
  """
  @spec resolve(Interpreter.variables() | {:only, Interpreter.variables()}, %{binary() => binary()}) ::
          {:ok, given :: %{binary() => binary() | nil}, all :: %{binary() => binary()}} | {:error, String.t()}
  def resolve({:only, variables}, _inherited), do: resolve(variables, %{})

  def resolve(variables, inherited) do
    with {:ok, given} <- values(variables) do
      all = inherited |> Map.merge(given) |> Map.reject(fn {_name, value} -> value == nil end)
      {:ok, given, all}
    end
  end

  defp values(variables) do
    Enum.reduce_while(variables, {:ok, %{}}, fn {name, value}, {:ok, values} ->
      case value(name, value) do
        {:ok, value} -> {:cont, {:ok, Map.put(values, name, value)}}
        {:error, complaint} -> {:halt, {:error, complaint}}
      end
    end)
  end

  defp value(name, value) when is_function(value) or is_tuple(value) do
    what = "the function for #{inspect(name)} in the option :environment"

    with {:ok, returned} <- call(value, what) do
      if wrong_value(name, returned) || is_function(returned) || is_tuple(returned),
        do: {:error, "#{what} returned neither nil nor a string without NUL"},
        else: {:ok, returned}
    end
  end

  defp value(_name, value), do: {:ok, value}

  @doc """
  Calls a function that stands for a value, and whose name is `what`.
  """
  @spec call((-> term()) | {module(), atom(), [term()]}, String.t()) :: {:ok, term()} | {:error, String.t()}
  def call(function, what) do
    case function do
      {m, f, a} -> {:ok, apply(m, f, a)}
      fun -> {:ok, fun.()}
    end
  catch
    kind, reason ->
      {:error, "#{what} failed: " <> Exception.format(kind, reason, without_arguments(__STACKTRACE__))}
  end

  @doc """
  A stack trace with the numbers of arguments instead of the arguments themselves, which may be secrets.
  """
  @spec without_arguments(Exception.stacktrace()) :: Exception.stacktrace()
  def without_arguments(stacktrace) do
    for {module, function, args, location} <- stacktrace,
        do: {module, function, if(is_list(args), do: length(args), else: args), location}
  end
end
