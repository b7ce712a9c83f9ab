defmodule Snex.Remote do
  @moduledoc false
  # Interpreters wherever they are. What is asked of one runs on its own node, for the native code knows only the
  # processes of its node; `:erpc` carries it there.
  #
  # Who outlives whom: a process that `:erpc` has spawned there would run on when its caller is gone. A watcher beside it
  # kills it as soon as the caller goes, or the caller's node, and Python then cancels the work.
  #
  # An environment made from here for an interpreter there has two handles. The real one is held there by a *keeper*, a
  # process; the `Snex.Env` has a proxy, which tells a *reaper*, a process here, when nobody refers to it any more. Both
  # processes are there for one environment, and each watches the other, so that everything ends the same way: whether
  # the proxy becomes garbage, this node or that one goes, the interpreter goes (the keeper watches it as well), or the
  # caller dies or gives up while the environment is being made. Both processes are gone then, and the environment is.

  alias Snex.Env
  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Native
  alias Snex.Remote.Keeper
  alias Snex.Remote.Reaper
  alias Snex.Remote.Watcher
  alias Snex.Request

  # The interpreter's node sees to the timeout. How long its answer may then take, in ms, before it counts as lost.
  @grace 1_000

  @doc """
  Calls `module.function` with the interpreter's pid, `args` and the options, on the interpreter's node.
  """
  @spec run(Interpreter.server(), module(), atom(), [term()], Request.options()) ::
          term() | {:error, Error.t()}
  def run(server, module, function, args, options) do
    case locate(server) do
      pid when is_pid(pid) and node(pid) == node() -> apply(module, function, [pid | args] ++ [options])
      nil -> {:error, %Error{code: :call_failed, reason: :noproc}}
      elsewhere -> call(elsewhere, module, function, args, options)
    end
  end

  @doc """
  Makes an environment that lives as long as this node refers to it.
  """
  @spec make_env(Interpreter.server(), [Env.source()], map(), tuple(), Request.options()) ::
          {:ok, Env.t()} | {:error, Error.t()}
  def make_env(server, sources, vars, encoding, options) do
    case locate(server) do
      here when here == nil or node(here) == node() ->
        run(here, Env, :make, [sources, vars, encoding], options)

      elsewhere ->
        reaper = Reaper.start()
        # Before the environment: whatever becomes of this process meanwhile, the reaper hears of it.
        proxy = Native.handle_proxy(reaper, reaper, make_ref(), 0)

        with {:ok, env, keeper} <-
               run(elsewhere, __MODULE__, :make_kept, [reaper, sources, vars, encoding], options) do
          send(reaper, {:kept, keeper})
          {:ok, %{env | handle: proxy}}
        end
    end
  end

  @doc """
  Drops an environment.
  """
  @spec destroy_env(Env.t(), Request.options()) :: :ok
  def destroy_env(%Env{} = env, options) do
    # One that cannot be reached is gone, or will be when its node finds this one gone.
    _ = run(env.interpreter, __MODULE__, :destroy, [env.id], options)
    :ok
  end

  @doc false
  @spec destroy(pid(), pos_integer(), Request.options()) :: :ok
  def destroy(interpreter, id, _options), do: Native.handle_destroy(interpreter, id)

  @doc """
  Keeps an environment until it is destroyed.
  """
  @spec keep_env(Env.t(), Request.options()) :: :ok
  def keep_env(%Env{} = env, options) do
    # As above.
    _ = run(env.interpreter, __MODULE__, :keep, [env.id], options)
    :ok
  end

  @doc false
  @spec keep(pid(), pos_integer(), Request.options()) :: :ok
  def keep(interpreter, id, _options), do: Native.handle_keep(interpreter, :environment, id)

  @doc false
  # On the interpreter's node: the environment, and a keeper that has its handle.
  @spec make_kept(pid(), reaper :: pid(), [Env.source()], map(), tuple(), Request.options()) ::
          {:ok, Env.t(), keeper :: pid()} | {:error, Error.t()}
  def make_kept(interpreter, reaper, sources, vars, encoding, options) do
    with {:ok, env} <- Env.make(interpreter, sources, vars, encoding, options) do
      {:ok, env, Keeper.start(env, reaper, interpreter)}
    end
  end

  @doc """
  Where an interpreter is: its pid, `{name, node}` of another node, or `nil` when there is none. Raises `ArgumentError` for what
  cannot name one.
  """
  @spec locate(Interpreter.server()) :: pid() | {atom(), node()} | nil
  def locate(pid) when is_pid(pid), do: pid
  def locate({:via, module, _name} = server) when is_atom(module), do: whereis(server)
  def locate({:global, _name} = server), do: whereis(server)
  def locate(name) when is_atom(name), do: whereis(name)
  def locate({name, node} = server) when is_atom(name) and is_atom(node), do: whereis(server)

  def locate(other) do
    raise ArgumentError,
          "expected an environment or an interpreter (its pid, its name, {name, node}, {:global, name} or " <>
            "{:via, module, name}), got: #{inspect(other)}"
  end

  defp whereis(server) do
    case GenServer.whereis(server) do
      found when is_pid(found) or is_tuple(found) -> found
      # Neither :undefined, as a registry may say, nor a port.
      _none -> nil
    end
  catch
    # A registry that is not there knows nobody.
    _kind, _reason -> nil
  end

  defp call(server, module, function, args, options) do
    there = if is_pid(server), do: node(server), else: elem(server, 1)
    time = Request.time_left(options.deadline)
    patience = if time == :infinity, do: :infinity, else: time + @grace

    try do
      :erpc.call(there, __MODULE__, :serve, [self(), time, server, module, function, args, options], patience)
    catch
      :error, {:erpc, :timeout} ->
        {:error, %Error{code: :response_timeout}}

      :error, {:erpc, :noconnection} ->
        {:error, %Error{code: :call_failed, reason: {:nodedown, there}}}

      # The process was killed there, or there is no Snex, or another version.
      _kind, reason ->
        {:error, %Error{code: :call_failed, reason: reason}}
    else
      {:returned, result} -> result
      {:failed, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc false
  # On the interpreter's node, in a process of `:erpc`. The clocks of two nodes have nothing in common but their pace.
  @spec serve(pid(), timeout(), Interpreter.server(), module(), atom(), [term()], Request.options()) ::
          {:returned, term()} | {:failed, :error | :exit | :throw, term(), Exception.stacktrace()}
  def serve(caller, time, server, module, function, args, options) do
    Watcher.start(caller, self())
    {:returned, run(server, module, function, args, %{options | deadline: Request.deadline(time)})}
  catch
    kind, reason -> {:failed, kind, reason, __STACKTRACE__}
  end
end
