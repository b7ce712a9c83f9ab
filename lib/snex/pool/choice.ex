defmodule Snex.Pool.Choice do
  @moduledoc false
  # Chooses where a call to a pool runs, on the pool's node.
  #
  # The native code chooses the least loaded interpreter with room, and returns a *slot* in it. A slot is a resource, owned by the calling
  # process. When a request is submitted, it takes the slot over, and the slot is freed when Python has ended the request. So the slot is
  # always freed in the end, wherever the calling process may die. The same applies to the ticket of a waiting call.
  #
  # With `scope: :cluster`, a call that finds no room enters the queue here, and other nodes are asked for their load. If one of them is less
  # loaded, the call leaves the queue and is sent to that node, which does not pass it on. Its options then have `:sent`, with:
  #
  #   * `:begun`, an alias to which a message is sent as soon as the call has an interpreter. If that node fails before, the call returns, and
  #     waits here.
  #   * `:patience`, how long the call may wait there, in ms: the time left that it could have waited here.
  #   * `:thing`, the environment or object whose interpreter the call has to run in, if there is one.

  alias Snex.Env
  alias Snex.Error
  alias Snex.Native
  alias Snex.Object
  alias Snex.Pool.Cluster
  alias Snex.Pool.Queue
  alias Snex.Remote
  alias Snex.Request

  # In the process dictionary: the interpreter that the process has checked out, by pool.
  @checked_out {__MODULE__, :checked_out}

  @doc """
  Calls `module.function` with an interpreter's pid, `args` and the options; see `Snex.Remote.run/5`. `pid` is a pool, or the
  interpreter itself.
  """
  @spec run(pid(), module(), atom(), [term()], Request.options()) :: {term(), [reference()]}
  def run(pid, module, function, args, %{sent: %{thing: thing}} = options) when thing != nil,
    do: go_to(thing, nil, pid, {module, function, args}, options, false)

  def run(pid, module, function, args, options) do
    call = {module, function, args}

    with nil <- checked_out(pid),
         nil <- refused(pid, call),
         {interpreter, slot} when is_pid(interpreter) <- Queue.acquire_slot(pid, false, options) do
      run_in(interpreter, slot, pid, call, options, false)
    else
      # Not a pool.
      :noproc -> pid |> apply_to(module, function, args, options) |> with_fate(pid)
      {:error, error} -> {{:error, error}, []}
      {:elsewhere, other, patience} -> run_there(other, patience, pid, {module, function, args}, options)
      interpreter -> apply_to(interpreter, module, function, args, options)
    end
  end

  # With `fork: :each_call`, a result that lives in the interpreter would not outlive the call.
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

  # `pinned?` means that the call can only run in this interpreter.
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

  # Whether the call runs again, after its interpreter has gone down: without limit if its request had not reached the interpreter, and
  # otherwise as often as `:retry` allows.
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

  # Runs the call in the interpreter of `thing`, an environment or object among its arguments.
  defp go_to(thing, interpreter, pool, call, options, pinned?) do
    case if(pinned?, do: :noproc, else: owner(thing, pool, options)) do
      :sender ->
        throw({:snex_elsewhere, thing})

      {:elsewhere, other} ->
        run_with(thing, other, call, options)

      {owner, slot} ->
        # The owner may have ended just now.
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
  # The node that has sent the call knows the other nodes.
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
  The error for a call that uses an environment or object whose interpreter, a member of a pool, is gone.
  """
  @spec lost(Env.t() | Object.t(), String.t()) :: Error.t()
  def lost(thing, why) do
    code = if is_struct(thing, Env), do: :env_not_found, else: :object_not_found
    %Error{code: code, reason: "#{inspect(thing)} is gone with its interpreter, which #{why}"}
  end

  # Adds to an error why the interpreter is gone, if it was a member of a pool.
  defp with_fate({{:error, %Error{code: :call_failed} = error}, handles} = result, interpreter) do
    case Native.pool_buried(interpreter) do
      nil -> result
      why -> {{:error, put_in(error.details[:fate], why)}, handles}
    end
  end

  defp with_fate(result, _interpreter), do: result

  # ---- Other nodes ------------------------------------------------------------------------

  # Runs the call on another node, which is less loaded.
  defp run_there(other, patience, pool, {module, function, args} = call, options) do
    until = Request.deadline(patience)
    # This node decides whether the call is retried, so that each retry is counted once.
    sent = Map.put(options, :retry, 0)

    case send_to(other, call, sent, %{patience: patience, thing: nil}) do
      # The call has not begun there: that pool was gone or drained, its queue was full, or the call has waited too long.
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

  # Runs the call on the node of the environment or object that it uses.
  defp run_with(thing, other, call, options) do
    {result, _begun?} = send_to(other, call, options, %{patience: :infinity, thing: thing})
    {result, []}
  end

  # Returns the result, and whether the call had begun there.
  defp send_to(other, {module, function, args}, options, sent) do
    # The alias accepts one message.
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

  # The message, if there is one, came before the result, or before the signal that the node is gone.
  defp begun?(begun) do
    :erlang.unalias(begun)

    receive do
      {^begun, :begun} -> true
    after
      0 -> false
    end
  end

  @doc """
  How many calls of the calling process can run at the same time in a pool or interpreter. It is 1 for an interpreter, and for a pool of
  which the process has checked out an interpreter.
  """
  @spec width(pid()) :: pos_integer()
  def width(pid),
    do: if(checked_out(pid), do: 1, else: pid |> Native.pool_figures() |> elem(0) |> max(1))

  # ---- Exclusive use ----------------------------------------------------------------------

  @doc """
  Calls `fun` with an interpreter that nobody else uses meanwhile. Returns `{:ok, result}`, or an error if it has waited too long.
  """
  @spec checkout(pid(), (pid() -> result), Request.deadline()) :: {:ok, result} | {:error, Error.t()}
        when result: term()
  def checkout(pool, fun, deadline) do
    case checked_out(pool) do
      nil ->
        with {interpreter, slot} when is_pid(interpreter) <-
               Queue.acquire_slot(pool, true, %{deadline: deadline}) do
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

  # The interpreter of a pool that the calling process has checked out.
  defp checked_out(pool) do
    case Process.get(@checked_out) do
      nil -> nil
      checked_out -> checked_out[pool]
    end
  end
end
