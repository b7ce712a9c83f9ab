defmodule Snex.Pool.Choice do
  @moduledoc false
  # Where a call runs that was given a pool: everything that chooses goes through here, on the pool's node.
  #
  # The native code chooses the least loaded interpreter with room, and returns a *slot* in it: a resource of the calling process, which
  # counts for as long as it lives. The request takes it over when it is submitted, and Python's end of the request frees it. So whatever
  # becomes of the calling process, at whatever line, the slot is free when nothing runs in it any more. The same holds for the ticket
  # of one who waits.
  #
  # With `scope: :cluster`, a call that finds no room has a place in the queue here while others are asked for their load. If one has less to
  # do, the call leaves the queue and is sent there, and goes to nobody else from there. Its options have `:sent` then:
  #
  #   * `:begun`, an alias that is told as soon as the call has an interpreter. Until then nothing is lost with that node: the call
  #     comes back, and waits here.
  #   * `:patience`, how long it may still wait, in ms: as long as it could have waited here.
  #   * `:thing`, the environment or object that it has to run with, if there is one.

  alias Snex.Env
  alias Snex.Error
  alias Snex.Native
  alias Snex.Object
  alias Snex.Pool.Cluster
  alias Snex.Pool.Queue
  alias Snex.Remote
  alias Snex.Request

  # In the dictionary of a process that has interpreters for itself: which, of which pool.
  @checked_out {__MODULE__, :checked_out}

  @doc """
  Calls `module.function` with an interpreter's pid, `args` and the options; see `Snex.Remote.run/5`. `pid` is that of a pool,
  or of the interpreter itself.
  """
  @spec run(pid(), module(), atom(), [term()], Request.options()) :: {term(), [reference()]}
  def run(pid, module, function, args, %{sent: %{thing: thing}} = options) when thing != nil,
    do: go_to(thing, nil, pid, {module, function, args}, options, false)

  def run(pid, module, function, args, options) do
    call = {module, function, args}

    with nil <- checked_out(pid),
         nil <- refused(pid, call),
         {interpreter, slot} when is_pid(interpreter) <- Queue.take(pid, false, options) do
      run_in(interpreter, slot, pid, call, options, false)
    else
      # It is no pool.
      :noproc -> pid |> apply_to(module, function, args, options) |> with_fate(pid)
      {:error, error} -> {{:error, error}, []}
      {:elsewhere, other, patience} -> run_there(other, patience, pid, {module, function, args}, options)
      interpreter -> apply_to(interpreter, module, function, args, options)
    end
  end

  # What cannot outlive the call where each has an interpreter of its own.
  defp refused(pid, call) do
    with what when what != nil <- keeps(call), {_at_a_time, _waiting, true} <- Native.pool_figures(pid) do
      reason =
        "#{what} would be gone after this call: each call of the pool #{inspect(pid)} has a copy of its own (fork: :each_call). " <>
          "With Snex.Pool.checkout/3, several calls use the same copy"

      {:error, %Error{code: :call_failed, reason: reason}}
    else
      _not_so -> nil
    end
  end

  defp keeps({Env, :make, _args}), do: "an environment"
  defp keeps({Request, :run, [%{returns: :object} | _encoding]}), do: "an object"
  defp keeps(_call), do: nil

  defp apply_to(interpreter, module, function, args, options),
    do: apply(module, function, [interpreter | args] ++ [options])

  # `pinned?` when the call can run nowhere else.
  defp run_in(interpreter, slot, pool, {module, function, args} = call, options, pinned?) do
    with %{sent: %{begun: begun}} <- options, do: send(begun, {begun, :begun})
    apply_to(interpreter, module, function, args, Map.put(options, :slot, slot))
  catch
    :throw, {:snex_elsewhere, thing} ->
      Native.pool_give_back(slot)
      go_to(thing, interpreter, pool, call, options, pinned?)

    kind, reason ->
      Native.pool_give_back(slot)
      :erlang.raise(kind, reason, __STACKTRACE__)
  else
    result ->
      unused? = Native.pool_give_back(slot)
      {again, options} = again(result, interpreter, unused?, options)

      if again and not pinned?,
        do: run(pool, module, function, args, options),
        else: if(pinned?, do: with_fate(result, interpreter), else: result)
  end

  # Of an interpreter that has gone down, a request that had not reached it has lost nothing.
  defp again({{:error, %Error{code: code}}, _handles}, interpreter, unused?, options)
       when code in [:call_failed, :interpreter_exited, :internal_error] do
    retry = Map.get(options, :retry, 0)
    down? = not match?({_running, _calls, true}, Native.pool_member(interpreter))

    cond do
      not down? -> {false, options}
      unused? -> {true, options}
      retry > 0 -> {true, %{options | retry: retry - 1}}
      true -> {false, options}
    end
  end

  defp again(_result, _interpreter, _unused?, options), do: {false, options}

  # An environment or an object in the arguments says where the call has to run.
  defp go_to(thing, interpreter, pool, call, options, pinned?) do
    case if(pinned?, do: :noproc, else: owner(thing, pool, options)) do
      :sender ->
        throw({:snex_elsewhere, thing})

      {:elsewhere, other} ->
        run_with(thing, other, call, options)

      {owner, slot} ->
        # It may have ended just now.
        with {{:error, %Error{details: %{fate: why}}}, handles} <-
               run_in(owner, slot, pool, call, options, true),
             do: {{:error, lost(thing, why)}, handles}

      :noproc ->
        case gone(thing) do
          nil -> raise ArgumentError, foreign(thing, interpreter, pool, pinned?)
          error -> {{:error, error}, []}
        end
    end
  end

  defp owner(%{interpreter: pid}, pool, _options) when node(pid) == node(), do: Native.pool_enter(pool, pid)
  # Whoever has sent the call knows of the other nodes.
  defp owner(_thing, _pool, %{sent: %{thing: nil}}), do: :sender
  defp owner(_thing, _pool, %{sent: _sent}), do: :noproc

  defp owner(%{interpreter: pid}, pool, _options) do
    case Remote.caller() == nil && Cluster.on(pool, node(pid)) do
      other when is_pid(other) -> {:elsewhere, other}
      _none -> :noproc
    end
  end

  defp gone(thing) when node(thing.interpreter) != node(), do: nil

  defp gone(thing) do
    case Native.pool_buried(thing.interpreter) do
      nil -> nil
      why -> lost(thing, why)
    end
  end

  defp foreign(thing, interpreter, pool, pinned?) do
    where =
      if pinned?,
        do: "#{inspect(interpreter)}, to which another value of the call belongs",
        else: "#{inspect(pool)}, a pool that it does not belong to"

    hint = if is_struct(thing, Object), do: ". Copy it there with Snex.Object.copy/2"

    "#{inspect(thing)} belongs to the interpreter #{inspect(thing.interpreter)}, and cannot be used in #{where}#{hint}"
  end

  @doc """
  The error of a call that uses something which has gone with an interpreter of a pool.
  """
  @spec lost(Env.t() | Object.t(), String.t()) :: Error.t()
  def lost(thing, why) do
    code = if is_struct(thing, Env), do: :env_not_found, else: :object_not_found
    %Error{code: code, reason: "#{inspect(thing)} is gone with its interpreter, which #{why}"}
  end

  # What the pool knows of an interpreter that is not there any more.
  defp with_fate({{:error, %Error{code: :call_failed} = error}, handles} = result, interpreter) do
    case Native.pool_buried(interpreter) do
      nil -> result
      why -> {{:error, put_in(error.details[:fate], why)}, handles}
    end
  end

  defp with_fate(result, _interpreter), do: result

  # ---- Other nodes ------------------------------------------------------------------------

  # On another node, which has less to do.
  defp run_there(other, patience, pool, {module, function, args} = call, options) do
    until = Request.deadline(patience)
    # Whether it runs once more is decided here, and counted once.
    sent = Map.put(options, :retry, 0)

    case send_to(other, call, sent, %{patience: patience, thing: nil}) do
      # It was not there, was drained, or its queue was full; or there was less time than here.
      {{:error, %Error{code: code}} = result, false} when code in [:call_failed, :overloaded] ->
        left = Request.time_left(until)
        home = Map.put(options, :home, left)
        if left == 0, do: {result, []}, else: run(pool, module, function, args, home)

      {{:error, %Error{} = error} = result, _begun?} ->
        retry = Map.get(options, :retry, 0)
        again? = retry > 0 and lost?(error)
        options = Map.put(options, :retry, retry - 1)
        if again?, do: run(pool, module, function, args, options), else: {result, []}

      {result, _begun?} ->
        {result, []}
    end
  catch
    :throw, {:snex_elsewhere, thing} -> go_to(thing, other, pool, call, options, false)
  end

  defp lost?(%Error{code: :interpreter_exited}), do: true
  defp lost?(%Error{code: :call_failed, reason: {:nodedown, _node}}), do: true
  defp lost?(_error), do: false

  # Where the environment or object is that it uses.
  defp run_with(thing, other, call, options) do
    {result, _begun?} = send_to(other, call, options, %{patience: :infinity, thing: thing})
    {result, []}
  end

  # What has become of it, and whether it had begun.
  defp send_to(other, {module, function, args}, options, sent) do
    # It takes one message.
    begun = :erlang.alias([:reply])

    try do
      Remote.run(other, module, function, args, Map.put(options, :sent, Map.put(sent, :begun, begun)))
    catch
      kind, reason ->
        begun?(begun)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result -> {result, begun?(begun)}
    end
  end

  # The message has come before the news that the node is gone.
  defp begun?(begun) do
    :erlang.unalias(begun)

    receive do
      {^begun, :begun} -> true
    after
      0 -> false
    end
  end

  @doc """
  How many calls of the calling process can run at the same time: one in an interpreter, and in one that it has for itself.
  """
  @spec width(pid()) :: pos_integer()
  def width(pid),
    do: if(checked_out(pid), do: 1, else: pid |> Native.pool_figures() |> elem(0) |> max(1))

  # ---- Exclusive use ----------------------------------------------------------------------

  @doc """
  Calls `fun` with an interpreter that nobody else uses meanwhile: `{:ok, result}`, or the error of one who waits too long.
  """
  @spec checkout(pid(), (pid() -> result), Request.deadline()) :: {:ok, result} | {:error, Error.t()}
        when result: term()
  def checkout(pool, fun, deadline) do
    case checked_out(pool) do
      nil ->
        with {interpreter, slot} when is_pid(interpreter) <- Queue.take(pool, true, %{deadline: deadline}) do
          use_alone(pool, interpreter, slot, fun)
        else
          :noproc ->
            {:error, %Error{code: :call_failed, reason: "#{inspect(pool)} is not a pool, or is gone"}}

          {:error, error} ->
            {:error, error}
        end

      interpreter ->
        {:ok, fun.(interpreter)}
    end
  end

  defp use_alone(pool, interpreter, slot, fun) do
    Process.put(@checked_out, Map.put(Process.get(@checked_out, %{}), pool, interpreter))
    {:ok, fun.(interpreter)}
  after
    case Map.delete(Process.get(@checked_out, %{}), pool) do
      none when none == %{} -> Process.delete(@checked_out)
      others -> Process.put(@checked_out, others)
    end

    Native.pool_give_back(slot)
  end

  # The interpreter of a pool that the calling process has for itself.
  defp checked_out(pool) do
    case Process.get(@checked_out) do
      nil -> nil
      checked_out -> checked_out[pool]
    end
  end
end
