defmodule Snex.Pool.Members do
  @moduledoc false
  # The interpreters of a pool, for its process: which there are, how far each of them is, and what is to be done next so that there are as
  # many as there should be. What changes here is done by `settle/1`, whatever has happened before.
  #
  # The life of a member: `:starting`, `:running` (it may be chosen), `:leaving` (it is not, and ends once nothing runs in it). All are linked
  # to the pool's process, whose message of their exit is the end. One that is due to be replaced runs on until its substitute does.
  #
  # With `fork: :each_call`, a member that has been chosen is `:used`: it ends as one that leaves does, and the next one starts at once. So
  # there are as many that run as there may be calls, besides those that are used.

  alias Snex.Error
  alias Snex.Native
  alias Snex.Pool.Member
  alias Snex.Pool.Template
  alias Snex.Telemetry

  require Logger

  # Between attempts to start an interpreter, in ms: doubled each time, up to the longest.
  @pause 100
  @longest_pause 30_000

  # An interpreter that ends sooner counts as one that could not be started, in ms.
  @probation 1_000

  @enforce_keys [:module, :options, :size, :recycle, :name]
  defstruct [
    :module,
    :options,
    :size,
    :recycle,
    :name,
    :error,
    :retry,
    failures: 0,
    all: %{},
    template: %Template{}
  ]

  @type t() :: %__MODULE__{
          module: module(),
          options: keyword(),
          size: pos_integer(),
          recycle: map(),
          name: term(),
          # Why the last attempt to start one has failed; a timer until the next one.
          error: Error.t() | term(),
          retry: reference() | nil,
          failures: non_neg_integer(),
          all: %{pid() => Member.t()},
          template: Template.t()
        }

  @doc """
  Starts what is missing, first the template of copies, takes out what there is too much of, replaces what is due, one after the other.
  """
  @spec settle(t()) :: t()
  def settle(%__MODULE__{} = members) do
    members = take_steps(members)
    used = for {_pid, %Member{status: :starting} = member} <- members.all, do: member.template
    Template.end_replaced(members.template, used)
    members
  end

  defp take_steps(members) do
    missing = members.size - Enum.count(members.all, fn {_pid, member} -> counts?(member) end)

    cond do
      missing < 0 -> surplus(members, -missing)
      members.retry != nil -> members
      not Template.ready?(members.template) -> start_template(members)
      missing > 0 -> members |> start(nil) |> take_steps()
      true -> substitute(members)
    end
  end

  defp counts?(%Member{status: :starting, substitutes: substitutes}), do: substitutes == nil
  defp counts?(%Member{status: status}), do: status == :running

  # It comes to `template_started/2`, or exits.
  defp start_template(members) do
    case Template.start(members.template, members.module, members.options) do
      {:ok, template} -> %{members | template: template}
      {:error, reason} -> template_failed(members, reason)
      other -> template_failed(members, unexpected(members, other))
    end
  rescue
    error -> template_failed(members, error)
  end

  defp template_failed(members, reason) do
    # The current one, if there is one, goes on.
    template = %{members.template | renew?: false}
    %{members | template: template} |> give_up_restart() |> failed(reason)
  end

  # The one function that starts a member. It comes to `started/2`, or exits.
  defp start(members, substitutes) do
    case Template.start_member(members.template, members.module, members.options) do
      {:ok, pid} ->
        # The answer is `{{:snex_member, pid}, :ok}`: so this process waits for nobody.
        send(pid, {:"$gen_call", {self(), {:snex_member, pid}}, :await_start})

        put_in(members.all[pid], Member.new(members.recycle, substitutes, members.template.current))

      {:error, reason} ->
        failed(members, reason)

      other ->
        failed(members, unexpected(members, other))
    end
  rescue
    error -> failed(members, error)
  end

  defp unexpected(members, other), do: "#{inspect(members.module)}.start_link/1 returned #{inspect(other)}"

  # One after the other, so that there is one interpreter more than asked for, and no more.
  defp substitute(%{all: all} = members) do
    if Enum.any?(all, fn {_pid, member} -> member.status == :starting end) do
      members
    else
      case Enum.find(all, fn {_pid, member} -> member.status == :running and member.due != nil end) do
        {pid, _member} -> start(members, pid)
        nil -> members
      end
    end
  end

  # First those that do not run yet, then those where least runs.
  defp surplus(members, count) do
    members.all
    |> Enum.filter(fn {_pid, member} -> counts?(member) end)
    |> Enum.sort_by(fn {pid, member} -> {member.status == :running, Member.load(pid)} end)
    |> Enum.take(count)
    |> Enum.reduce(members, fn {pid, _member}, members ->
      retire(members, pid, "was taken out of its pool by Snex.Pool.resize/2")
    end)
  end

  @doc """
  An interpreter has started: from now on it may be chosen.
  """
  @spec started(t(), pid()) :: t()
  def started(%{all: all} = members, pid) when not is_map_key(all, pid), do: members

  def started(members, pid) do
    member = members.all[pid]

    # One that has ended already sends its exit.
    if member.status == :starting and Member.join(member, pid) == :ok do
      Process.send_after(self(), {:snex_proven, pid}, @probation)
      members = put_in(members.all[pid], %{member | status: :running, substitutes: nil})
      members |> replaced(member.substitutes, pid, member) |> settle()
    else
      members
    end
  end

  @doc """
  A template has started: from now on there may be copies of it.
  """
  @spec template_started(t(), pid()) :: t()
  def template_started(members, pid) do
    Process.send_after(self(), {:snex_proven, pid}, @probation)
    settle(%{members | template: Template.started(members.template, pid, members.name)})
  end

  @doc """
  An interpreter runs longer than one that is no good.
  """
  @spec proven(t(), pid()) :: t()
  def proven(%{retry: nil} = members, pid)
      when is_map_key(members.all, pid) or is_map_key(members.template.all, pid),
      do: %{members | failures: 0, error: nil}

  def proven(members, _pid), do: members

  defp replaced(members, old, new, %{started: begun}) do
    case members.all[old] do
      %Member{status: :running, due: due} = member when due != nil ->
        {_running, calls, _open?} = Native.pool_member(old)
        measurements = %{calls: calls, age: native(Member.age(member))}
        metadata = %{pool: self(), name: members.name, interpreter: old, substitute: new, reason: due}
        Telemetry.pool_recycled(begun, measurements, metadata)
        retire(members, old, why(due, calls))

      _gone ->
        members
    end
  end

  defp why(:restart, _calls), do: "was replaced by Snex.Pool.restart/1"

  defp why(limit, calls),
    do: "was replaced after #{calls} calls, by the limit #{inspect(limit)} of the pool's option :recycle"

  # It ends once nothing runs in it.
  defp retire(members, pid, why) do
    Native.pool_bury(pid, why)
    Native.pool_leave(pid)
    members = put_in(members.all[pid].status, :leaving)
    dismiss_if_idle(pid)
    members
  end

  @doc """
  Has as many interpreters as there are to be, and calls at a time where each is for one.
  """
  @spec resize(t(), pos_integer()) :: t()
  def resize(members, size) do
    if for_one_call?(members), do: Native.pool_once(size)
    settle(%{members | size: size})
  end

  defp for_one_call?(members), do: members.template.fork == :each_call

  @doc """
  An interpreter has had as many calls as it is to have: it is replaced. One that was for a single call ends with it.
  """
  @spec worn(t(), pid()) :: t()
  def worn(members, pid),
    do: if(for_one_call?(members), do: used(members, pid), else: due(members, [pid], :requests))

  defp used(members, pid) do
    case members.all[pid] do
      %Member{status: :running} = member ->
        members = put_in(members.all[pid], %{member | status: :used, due: nil})
        Native.pool_bury(pid, "was for one call, and ended with it (fork: :each_call)")
        dismiss_if_idle(pid)
        # It has been of use.
        members |> proven(pid) |> settle()

      _gone ->
        members
    end
  end

  @doc """
  Ends the interpreters that have left, and in which nothing runs any more.
  """
  @spec dismiss(t()) :: t()
  def dismiss(members) do
    for {pid, %Member{status: status}} <- members.all, status in [:leaving, :used], do: dismiss_if_idle(pid)
    members
  end

  defp dismiss_if_idle(pid) do
    if Native.pool_idle(pid), do: Process.exit(pid, {:shutdown, :recycled})
  end

  @doc """
  An interpreter has ended, a member or a template.
  """
  @spec ended(t(), pid(), term()) :: t()
  def ended(members, pid, reason) when is_map_key(members.template.all, pid) do
    {which, template} = Template.ended(members.template, pid)
    members = %{members | template: template}

    case which do
      :next -> template_failed(members, reason)
      {:current, age} when age < @probation -> failed(members, reason)
      _no_failure -> members
    end
    |> settle()
  end

  def ended(members, pid, reason) do
    {member, all} = Map.pop!(members.all, pid)
    members = %{members | all: without_substitute(all, pid)}

    # It may have ended in its only call, before this process has heard of that.
    case if(for_one_call?(members) and member.status == :running, do: used_now(pid), else: member.status) do
      :leaving ->
        members

      :used ->
        Native.pool_leave(pid)
        members

      :starting ->
        members |> give_up_restart() |> failed(reason)

      :running ->
        Native.pool_leave(pid)
        Native.pool_bury(pid, "has ended: #{describe(reason)}")
        if Member.age(member) < @probation, do: failed(members, reason), else: members
    end
    |> settle()
  end

  defp used_now(pid) do
    receive do
      {:snex_pool, :worn, ^pid} -> :used
    after
      0 -> :running
    end
  end

  # What was to replace it is needed now.
  defp without_substitute(all, old) do
    Map.new(all, fn
      {pid, %Member{substitutes: ^old} = member} -> {pid, %{member | substitutes: nil}}
      other -> other
    end)
  end

  # A restart that fails is not tried again; a limit that is exceeded stays so.
  defp give_up_restart(members) do
    all =
      Map.new(members.all, fn {pid, member} ->
        {pid, if(member.due == :restart, do: %{member | due: nil}, else: member)}
      end)

    %{members | all: all}
  end

  defp failed(members, reason) do
    failures = members.failures + 1
    pause = min(@longest_pause, @pause * 2 ** min(failures - 1, 20))
    # Not all pools at the same time.
    pause = pause - :rand.uniform(div(pause, 5))
    if members.retry, do: Process.cancel_timer(members.retry)

    Logger.warning(
      "an interpreter of the pool #{inspect(members.name || self())} could not be started, or ended at once: " <>
        "#{describe(reason)}. Next attempt in #{pause} ms"
    )

    timer = Process.send_after(self(), :snex_retry, pause)
    %{members | failures: failures, error: error(reason), retry: timer}
  end

  @doc """
  The pause after an attempt that has failed is over.
  """
  @spec retry(t()) :: t()
  def retry(members), do: settle(%{members | retry: nil})

  @doc """
  Has all replaced: returns those that are. A copy that still starts is one of an old template.
  """
  @spec restart(t()) :: {[pid()], t()}
  def restart(%{template: template} = members) do
    old =
      for {pid, %Member{status: status}} <- members.all,
          status == :running or (template.fork? and status == :starting),
          do: pid

    {old, due(%{members | template: Template.renew(template)}, old, :restart)}
  end

  @doc """
  Whether an interpreter has left: it is gone, or has nothing to do but to finish calls.
  """
  @spec left?(t(), pid()) :: boolean()
  def left?(members, pid) do
    case members.all[pid] do
      nil -> true
      %Member{status: status} when status in [:leaving, :used] -> not Native.pool_idle(pid)
      _other -> false
    end
  end

  @doc """
  Marks interpreters as due to be replaced, once they run.
  """
  @spec due(t(), [pid()], atom()) :: t()
  def due(members, pids, reason) do
    pids
    |> Enum.reduce(members, fn pid, members ->
      case members.all[pid] do
        %Member{status: status, due: nil} when status in [:starting, :running] ->
          put_in(members.all[pid].due, reason)

        _other ->
          members
      end
    end)
    |> settle()
  end

  @doc """
  Those that are older, or use more memory, than they may.
  """
  @spec check(t()) :: t()
  def check(members) do
    for {pid, %Member{status: :running, due: nil} = member} <- members.all,
        reason = Member.exceeded(member, pid),
        reduce: members do
      members -> due(members, [pid], reason)
    end
  end

  @doc """
  Those that may be chosen.
  """
  @spec running(t()) :: [pid()]
  def running(members), do: for({pid, %Member{status: :running}} <- members.all, do: pid)

  @doc """
  Whether there are as many as there should be, and no others take calls.
  """
  @spec settled?(t()) :: boolean()
  def settled?(members) do
    used =
      if for_one_call?(members), do: Enum.count(members.all, &match?({_pid, %{status: :used}}, &1)), else: 0

    running = length(running(members))
    running <= members.size and running + used >= members.size
  end

  @doc """
  Ends all, at the same time, and waits until they are gone.
  """
  @spec stop(t(), term()) :: :ok
  def stop(members, reason) do
    pids = Map.keys(members.all) ++ Map.keys(members.template.all)
    for pid <- pids, do: Process.exit(pid, reason)

    for pid <- pids do
      receive do
        {:EXIT, ^pid, _reason} -> :ok
      end
    end

    :ok
  end

  @doc """
  What `Snex.Pool.info/1` tells of them.
  """
  @spec info(t()) :: map()
  def info(members) do
    %{
      size: members.size,
      running: length(running(members)),
      members:
        for({pid, member} <- members.all, do: Member.describe(member, pid)) |> Enum.sort_by(& &1.age, :desc),
      failure: failure(members),
      fork: members.template.fork? and members.template.fork,
      template: members.template.current
    }
  end

  defp failure(%{failures: 0}), do: nil

  defp failure(members) do
    next = members.retry && Process.read_timer(members.retry)
    %{attempts: members.failures, error: members.error, next_attempt_in: next || 0}
  end

  @doc """
  Why an interpreter has ended, or could not be started, as an error.
  """
  @spec error(term()) :: Error.t()
  def error(%Error{} = error), do: error
  def error({:shutdown, %Error{} = error}), do: error
  def error(reason), do: %Error{code: :call_failed, reason: reason}

  defp describe(reason), do: reason |> error() |> Error.summary() |> String.split("\n") |> hd()

  defp native(milliseconds), do: System.convert_time_unit(milliseconds, :millisecond, :native)
end
