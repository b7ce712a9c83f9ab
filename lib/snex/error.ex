defmodule Snex.Error do
  @moduledoc """
  An error between Elixir and Python, which functions of Snex return as `{:error, error}` or raise.

  `:code` is the kind of error, and `:reason` has the details:

  | code | reason |
  |---|---|
  | `:python_runtime_error` | Python raised an exception: the text of the exception. `:traceback` and `:exception` are set |
  | `:env_not_found` | the environment is gone: text that identifies it |
  | `:object_not_found` | the object was released, or its interpreter is gone: text that identifies it |
  | `:env_key_not_found` | a name to be copied is not in the environment: text with the name |
  | `:response_timeout` | no answer in time: `nil` |
  | `:init_script_timeout` | the start and the init script took too long: `nil` |
  | `:overloaded` | too many requests wait, or this one has waited too long to finish in time: text that says which |
  | `:call_failed` | the interpreter is not running, or was stopped: the reason |
  | `:interpreter_exited` | Python ended by itself: `{:exit_status, status}`, where a signal *n* counts as 128 + *n*; or `:memory_limit` |
  | `:internal_error` | Python sent something that does not follow the protocol, or Snex failed: text that says what |

  `:traceback` is a list of strings, as returned by Python's `traceback.format_exception`. If the interpreter ended, it
  has the last lines that Python wrote to standard error.

  `:exception` describes a Python exception: `%{type: "ValueError", module: "builtins", notes: [], cause: nil}`, where
  `:cause` is `nil` or a map of the same shape. If a signal ended the interpreter, it is `%{signal: "SIGSEGV"}`.

  `:details` has the other data that `message/1` needs: `%{timeout: ms, option: :timeout}` after a timeout,
  `%{interpreter: name}` for an interpreter that is not running, and `%{earlier: true}` if Python had ended before the call.

  `Exception.message/1` returns everything: what happened, what to do about it, and the whole traceback. `inspect/1` is
  shorter: it shows only the last lines of a long traceback.
  """

  alias Snex.Env
  alias Snex.Pool.Choice

  @type code() ::
          :python_runtime_error
          | :internal_error
          | :env_not_found
          | :env_key_not_found
          | :object_not_found
          | :init_script_timeout
          | :response_timeout
          | :overloaded
          | :call_failed
          | :interpreter_exited

  @type t() :: %__MODULE__{
          code: code(),
          reason: term(),
          traceback: [String.t()] | nil,
          exception: map() | nil,
          details: map()
        }

  @enforce_keys [:code]
  defexception [:code, :reason, :traceback, :exception, details: %{}]

  @impl Exception
  def message(%__MODULE__{} = error) do
    traceback = traceback(error)
    Enum.join([head(error, traceback)] ++ advice(error) ++ traceback, "\n")
  end

  # Of a module that is missing as a whole, not one in a package that is there.
  @missing ~r/^No module named '[^'.]+'$|^'[^']+' is neither a name in the environment nor a module\b/

  defp advice(%{code: :python_runtime_error, exception: %{type: type}, reason: reason})
       when type in ["ModuleNotFoundError", "NameError"] and is_binary(reason) do
    if reason =~ @missing,
      do: [
        "Packages come from the dependencies of the interpreter's module (:pyproject_toml, :project_path), or are installed " <>
          "in the Python that :python names. Modules of your own come from the folders of :python_path."
      ],
      else: []
  end

  defp advice(_error), do: []

  @doc false
  # The first line of the message.
  @spec summary(t()) :: String.t()
  def summary(error)

  def summary(%{code: :python_runtime_error, exception: %{type: type}} = error),
    do: "#{type}: #{error.reason}"

  def summary(%{code: :response_timeout} = error), do: "Python did not answer #{in_time(error)}"

  def summary(%{code: :init_script_timeout, details: %{during: :init_script}} = error),
    do: "the init script did not end #{in_time(error)}"

  def summary(%{code: :init_script_timeout} = error), do: "Python did not start #{in_time(error)}"

  def summary(%{code: :interpreter_exited, details: %{earlier: true}} = error),
    do: "the interpreter had ended before this call: #{summary(%{error | details: %{}})}"

  def summary(%{code: :interpreter_exited, reason: :memory_limit}),
    do:
      "Python ran out of memory, and ended after it had answered; see the options :limits and :on_memory_limit"

  def summary(%{code: :interpreter_exited, reason: {:exit_status, status}} = error) do
    case error.exception do
      %{signal: signal} -> "Python was ended by #{signal} (exit status #{status})"
      _ -> "Python exited with status #{status}"
    end
  end

  def summary(%{code: :call_failed, reason: :noproc, details: %{interpreter: interpreter}}),
    do: nobody(interpreter)

  def summary(%{code: :call_failed, reason: :noproc}),
    do: "there is no such interpreter, or it is gone"

  def summary(%{code: :call_failed, reason: :stuck}),
    do: "the interpreter was ended because a request was stuck (the option :on_stuck)"

  def summary(%{code: :call_failed, reason: {:nodedown, node}}),
    do: "the node of the interpreter is down: #{node}"

  def summary(%{code: code, reason: reason}) when is_exception(reason),
    do: "#{code}: " <> Exception.format_banner(:error, reason)

  def summary(%{reason: reason} = error) when is_binary(reason), do: "#{error.code}: #{reason}"
  def summary(error), do: "#{error.code}: #{inspect(error.reason)}"

  defp in_time(%{details: %{timeout: timeout, option: option}}),
    do: "within #{timeout} ms (the option #{inspect(option)})"

  defp in_time(_error), do: "in time"

  # An environment's interpreter, or one that was given as a process.
  defp nobody(pid) when is_pid(pid), do: "the interpreter #{inspect(pid)} has ended"

  defp nobody(name) do
    shown = inspect(name)

    how =
      cond do
        not is_atom(name) ->
          ". Start one with `name: #{shown}`"

        module?(name) ->
          ". Start it with `{#{shown}, name: #{shown}}` under a supervisor"

        String.starts_with?("#{name}", "Elixir.") and not Code.ensure_loaded?(name) ->
          ", and there is no module #{shown}. If one with `use Snex.Interpreter` is meant, check the spelling of its name; an " <>
            "interpreter without a module starts with `{Snex.Interpreter, name: #{shown}}` under a supervisor"

        true ->
          ". Start one with `{Snex.Interpreter, name: #{shown}}` under a supervisor"
      end

    "no interpreter is named #{shown}#{how}, or with start_link/1"
  end

  # Whether it is a module with `use Snex.Interpreter`.
  defp module?(name), do: Code.ensure_loaded?(name) and function_exported?(name, :start_link, 1)

  defp traceback(%{traceback: [_ | _] = lines} = error) do
    text = String.trim_trailing(Enum.join(lines))
    if repeats?(text, error), do: [], else: ["", text]
  end

  defp traceback(_error), do: []

  # Without any frame, a traceback is only the exception once more.
  defp repeats?(text, %{exception: %{type: type} = exception} = error),
    do: text in [summary(error), "#{exception[:module]}.#{type}: #{error.reason}"]

  defp repeats?(_text, _error), do: false

  @doc false
  # The summary, above the given lines of the traceback. Only its first line if these lines repeat the others: the text of an
  # `ElixirError` has a stack trace, and belongs there once.
  @spec head(t(), [String.t()]) :: String.t()
  def head(%{reason: reason} = error, shown) when is_binary(reason) do
    summary = error |> summary() |> String.trim_trailing()
    if dense(shown) =~ dense([reason]), do: summary |> String.split("\n") |> hd(), else: summary
  end

  def head(error, _shown), do: summary(error)

  # Without empty lines, of which `lines/1` has none.
  defp dense(texts), do: texts |> Enum.flat_map(&String.split(&1, "\n", trim: true)) |> Enum.join("\n")

  @doc false
  # The lines of a traceback that say more than the summary.
  @spec lines(t()) :: [String.t()]
  def lines(error) do
    case traceback(error) do
      ["", text] -> String.split(text, "\n", trim: true)
      [] -> []
    end
  end

  @doc false
  # For functions whose name ends in `!`.
  @spec unwrap!(:ok | {:ok, value} | {:error, t()}) :: :ok | value when value: term()
  def unwrap!(:ok), do: :ok
  def unwrap!({:ok, value}), do: value
  def unwrap!({:error, error}), do: raise(error)

  @doc false
  # With what only the caller knows: what it has called, and how long it has waited.
  @spec in_call({:ok, term()} | {:error, t()} | term(), Env.t() | Snex.Interpreter.server(), timeout()) ::
          term()
  def in_call({:error, %__MODULE__{code: :response_timeout} = error}, _where, timeout),
    do: {:error, %{error | details: %{timeout: timeout, option: :timeout}}}

  def in_call({:error, %__MODULE__{details: %{fate: why}}}, where, _timeout) when is_struct(where, Env),
    do: {:error, Choice.lost(where, why)}

  def in_call({:error, %__MODULE__{code: :call_failed, reason: :noproc} = error}, where, _timeout) do
    interpreter = if is_struct(where, Env), do: where.interpreter, else: where
    {:error, put_in(error.details[:interpreter], interpreter)}
  end

  def in_call(result, _where, _timeout), do: result

  defimpl Inspect do
    alias Snex.Error

    # Lines of a traceback, from its end.
    @lines 10

    def inspect(error, _options) do
      lines = last(Error.lines(error))
      head = Error.head(error, lines)
      # Most of them begin with it.
      text = if String.starts_with?(head, "#{error.code}"), do: head, else: "#{error.code}: #{head}"
      "#Snex.Error<" <> Enum.join([text | lines], "\n  ") <> ">"
    end

    defp last(lines),
      do: if(length(lines) > @lines, do: ["..." | Enum.take(lines, -@lines)], else: lines)
  end
end
