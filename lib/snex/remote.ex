defmodule Snex.Remote do
  @moduledoc false
  # Interpreters wherever they are. What is asked of one runs on its own node, for the native code knows only the
  # processes of its node; `:erpc` carries it there.
  #
  # Who outlives whom: a process that `:erpc` has spawned there would run on when its caller is gone. The tracker there kills it
  # as soon as the caller goes, or the caller's node, and Python then cancels the work.
  #
  # An environment or object that a call from here has returned has its handle there, with the tracker of that node. The struct
  # here has a proxy, and tells the tracker of this node when nobody refers to it any more. Everything ends the same way:
  # whether the proxy becomes garbage, this node or its tracker goes, that one goes, the caller dies before it has the result,
  # or has given up waiting for it.

  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Pool.Choice
  alias Snex.Remote.Tracker
  alias Snex.Request

  # The interpreter's node sees to the timeout. How long its answer may then take, in ms, before it counts as lost.
  @grace 1_000

  # In the dictionary of a process of `:erpc`.
  @caller {__MODULE__, :caller}

  @doc """
  Calls `module.function` with the interpreter's pid, `args` and the options, on the interpreter's node. For a pool, with that of the
  interpreter that it chooses.

  The function returns `{result, handles}`: what this function returns, and a list of the handles in it that the call has
  made, nearly always `[]`.
  """
  @spec run(Interpreter.server(), module(), atom(), [term()], Request.options()) ::
          term() | {:error, Error.t()}
  def run(server, module, function, args, options) do
    case locate(server) do
      pid when is_pid(pid) and node(pid) == node() ->
        {result, _handles} = Choice.run(pid, module, function, args, options)
        result

      nil ->
        not_there()

      elsewhere ->
        call(elsewhere, module, function, args, options)
    end
  end

  defp not_there, do: {:error, %Error{code: :call_failed, reason: :noproc}}

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
    ticket = make_ref()

    try do
      serve = [ticket, self(), time, server, module, function, args, options]
      :erpc.call(there, __MODULE__, :serve, serve, patience)
    catch
      :error, {:erpc, :timeout} ->
        Tracker.cancel(there, ticket)
        {:error, %Error{code: :response_timeout}}

      :error, {:erpc, :noconnection} ->
        {:error, %Error{code: :call_failed, reason: {:nodedown, there}}}

      # The process was killed there, or there is no Snex, or another version.
      _kind, reason ->
        Tracker.cancel(there, ticket)
        {:error, %Error{code: :call_failed, reason: reason}}
    else
      {:returned, result} -> result
      {:offered, result, holder, handles} -> replace(result, Tracker.claim(holder, ticket, handles))
      {:failed, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc """
  The process of another node for which the calling one runs, if there is one.
  """
  @spec caller() :: pid() | nil
  def caller, do: Process.get(@caller)

  # Puts proxies in the place of handles, wherever they are.
  defp replace(reference, proxies) when is_reference(reference), do: Map.get(proxies, reference, reference)
  defp replace([head | tail], proxies), do: [replace(head, proxies) | replace(tail, proxies)]

  defp replace(map, proxies) when is_map(map),
    do: map |> :maps.to_list() |> replace(proxies) |> :maps.from_list()

  defp replace(tuple, proxies) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> replace(proxies) |> List.to_tuple()

  defp replace(other, _proxies), do: other

  @doc false
  # On the interpreter's node, in a process of `:erpc`. The clocks of two nodes have nothing in common but their pace.
  @spec serve(
          Tracker.ticket(),
          pid(),
          timeout(),
          Interpreter.server(),
          module(),
          atom(),
          [term()],
          Request.options()
        ) ::
          {:returned, term()}
          | {:offered, term(), tracker :: pid(), [reference(), ...]}
          | {:failed, :error | :exit | :throw, term(), Exception.stacktrace()}
  def serve(ticket, caller, time, server, module, function, args, options) do
    tracker = Tracker.begin(ticket, caller)
    Process.put(@caller, caller)

    answer =
      try do
        options = %{options | deadline: Request.deadline(time)}

        case locate(server) do
          nil -> {:returned, not_there()}
          pid -> offer(Choice.run(pid, module, function, args, options), tracker, ticket)
        end
      catch
        kind, reason -> {:failed, kind, reason, __STACKTRACE__}
      end

    Tracker.finish(tracker, ticket, elem(answer, 0) == :offered)
    answer
  end

  defp offer({result, []}, _tracker, _ticket), do: {:returned, result}

  defp offer({result, handles}, tracker, ticket) do
    Tracker.offer(tracker, ticket, handles)
    {:offered, result, tracker, handles}
  end
end
