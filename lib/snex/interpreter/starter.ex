defmodule Snex.Interpreter.Starter do
  @moduledoc false
  # Starts the process of an interpreter.
  #
  # In `init/1` of a `GenServer`, a start would hear of nothing until Python is there: not of a question or a stop, nor of the
  # end of its parent. So the process is a `GenServer` from the beginning, and it is `start_link/2` that waits, for an answer
  # that the interpreter sends when it has started, or that it has failed to.

  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Interpreter.Options
  alias Snex.Interpreter.Server

  @doc """
  Starts the process, with options of `GenServer.start_link/3` (whose `:name` is registered before anything else is done).
  Returns when it calls `started/1` or `failed/2`.

  A process that is linked to its parent would take one along that does not trap exits, and so could never read why a start
  has failed. So the link goes before the answer comes.
  """
  @spec start_link(Options.t(), keyword()) :: GenServer.on_start()
  def start_link(options, server_options) do
    {name, server_options} = Keyword.pop(server_options, :name)
    {timeout, server_options} = Keyword.pop(server_options, :timeout, :infinity)
    {spawn_options, server_options} = Keyword.pop(server_options, :spawn_opt, [])
    args = [self(), name!(name), options, server_options]
    :proc_lib.start_link(__MODULE__, :init, args, timeout, spawn_options)
  end

  @doc """
  Lets `start_link/2` return the calling process.
  """
  @spec started(parent :: pid()) :: :ok
  def started(parent), do: :proc_lib.init_ack(parent, {:ok, self()})

  @doc """
  Lets `start_link/2` return an error. The calling process ends then.
  """
  @spec failed(parent :: pid(), Error.t() | {:already_started, pid()}) :: :ok
  def failed(parent, error) do
    Process.unlink(parent)
    :proc_lib.init_ack(parent, {:error, error})
  end

  @doc false
  @spec init(pid(), term(), Options.t(), keyword()) :: no_return()
  def init(parent, name, options, server_options) do
    # As if `GenServer` had started it: for observers, and for `Snex.Request`.
    Process.put(:"$initial_call", {Interpreter, :init, 1})

    case register(name) do
      :ok ->
        {:ok, state} = Server.init({options, parent})
        enter_loop(name, server_options, state)

      {:error, error} ->
        failed(parent, error)
    end
  end

  defp enter_loop(nil, options, state), do: :gen_server.enter_loop(Server, options, state)
  defp enter_loop(name, options, state), do: :gen_server.enter_loop(Server, options, state, name)

  defp name!(nil), do: nil
  defp name!(name) when is_atom(name), do: {:local, name}
  defp name!({:global, _term} = name), do: name
  defp name!({:via, module, _term} = name) when is_atom(module), do: name

  defp name!(other) do
    raise ArgumentError,
          "option :name cannot be #{inspect(other)}: expected an atom, {:global, term} or {:via, module, term}"
  end

  defp register(nil), do: :ok

  defp register(name) do
    {module, term} =
      case name do
        {:local, name} -> {__MODULE__, name}
        {:global, term} -> {:global, term}
        {:via, module, term} -> {module, term}
      end

    case module.register_name(term, self()) do
      :yes -> :ok
      :no -> {:error, {:already_started, module.whereis_name(term)}}
    end
  catch
    # An absent registry, or a module that is not one.
    kind, reason ->
      why = Exception.format_banner(kind, reason, __STACKTRACE__)
      {:error, %Error{code: :call_failed, reason: "the name #{inspect(name)} cannot be registered: #{why}"}}
  end

  @doc false
  @spec register_name(atom(), pid()) :: :yes | :no
  def register_name(name, pid) do
    Process.register(pid, name)
    :yes
  rescue
    error in ArgumentError -> if Process.whereis(name), do: :no, else: reraise(error, __STACKTRACE__)
  end

  @doc false
  @spec whereis_name(atom()) :: pid() | port() | nil
  def whereis_name(name), do: Process.whereis(name)
end
