defmodule Snex.Pool.Members do
  @moduledoc false
  # The interpreters of a pool, for its process: the status of each, and the next step towards the number that there should be. After every
  # event, `settle/1` takes that step.
  #
  # The life of a member: `:starting`, `:running` (it may be chosen), `:leaving` (it is no longer chosen, and ends once nothing runs in it).
  # All are linked to the pool's process, and removed when that gets their exit signals. A member that is due to be replaced keeps running
  # until its substitute runs.
  #
  # With `fork: :each_call`, a member that has been chosen is `:used`: it ends after its call, as a `:leaving` one does, and the next member
  # starts at once. So as many members run as there may be calls, in addition to the used ones.

  alias Snex.Native
  alias Snex.Pool.Backoff
  alias Snex.Pool.Member
  alias Snex.Pool.Template
  alias Snex.Telemetry

  # An interpreter that ends within this time, in ms, counts as one that could not be started.
  @probation 1_000

  @enforce_keys [:module, :options, :size, :recycle, :name]
  defstruct [
    :module,
    :options,
    :size,
    :recycle,
    :name,
    all: %{},
    backoff: %Backoff{},
    template: %Template{}
  ]

  @type t() :: %__MODULE__{
          module: module(),
          options: keyword(),
          size: pos_integer(),
          recycle: map(),
          name: term(),
          all: %{pid() => Member.t()},
          backoff: Backoff.t(),
          template: Template.t()
        }

  @doc """
  Takes the next steps: retires surplus members, starts missing ones (with `:fork`, the template first), and replaces those that are due,
  one after the other.
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
      Backoff.paused?(members.backoff) -> members
      not Template.ready?(members.template) -> start_template(members)
      missing > 0 -> members |> start(nil) |> take_steps()
      true -> substitute(members)
    end
  end

  defp counts?(%Member{status: :starting, substitutes: substitutes}), do: substitutes == nil
  defp counts?(%Member{status: status}), do: status == :running

  # Followed by `template_started/2`, or the exit of the template.
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
    # The current template, if there is one, stays in use.
    template = %{members.template | renew?: false}
    %{members | template: template} |> give_up_restart() |> failed(reason)
  end

  # The only function that starts a member. Followed by `started/2`, or the exit of the member.
  defp start(members, substitutes) do
    case Template.start_member(members.template, members.module, members.options) do
      {:ok, pid} ->
        # A call by hand, so that this process does not wait. The answer is the message `{{:snex_member, pid}, :ok}`.
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

  # One after the other, so that there is never more than one additional interpreter.
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

  # Retires members that do not run yet first, then those with the fewest calls.
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
  An interpreter has started: from now on, it may be chosen.
  """
  @spec started(t(), pid()) :: t()
  def started(%{all: all} = members, pid) when not is_map_key(all, pid), do: members

  def started(members, pid) do
    member = members.all[pid]

    # If it has ended already, its exit signal follows.
    if member.status == :starting and Member.join(member, pid) == :ok do
      Process.send_after(self(), {:snex_proven, pid}, @probation)
      members = put_in(members.all[pid], %{member | status: :running, substitutes: nil})
      members |> replaced(member.substitutes, pid, member) |> settle()
    else
      members
    end
  end

  @doc """
  A template has started: from now on, members are copies of it.
  """
  @spec template_started(t(), pid()) :: t()
  def template_started(members, pid) do
    Process.send_after(self(), {:snex_proven, pid}, @probation)
    settle(%{members | template: Template.started(members.template, pid, members.name)})
  end

  @doc """
  The probation of an interpreter is over. If it still exists, its start was a success.
  """
  @spec proven(t(), pid()) :: t()
  def proven(members, pid) when is_map_key(members.all, pid) or is_map_key(members.template.all, pid),
    do: %{members | backoff: Backoff.succeeded(members.backoff)}

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

  # The member ends once nothing runs in it.
  defp retire(members, pid, why) do
    Native.pool_bury(pid, why)
    Native.pool_leave(pid)
    members = put_in(members.all[pid].status, :leaving)
    dismiss_if_idle(pid)
    members
  end

  @doc """
  Changes how many interpreters there should be; with `fork: :each_call`, also how many calls run at a time.
  """
  @spec resize(t(), pos_integer()) :: t()
  def resize(members, size) do
    if for_one_call?(members), do: Native.pool_once(size)
    settle(%{members | size: size})
  end

  defp for_one_call?(members), do: members.template.fork == :each_call

  @doc """
  An interpreter has had its last call, and is to be replaced. With `fork: :each_call`, it ends with its only call.
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
        # A call has chosen it, so its start was a success.
        members |> proven(pid) |> settle()

      _gone ->
        members
    end
  end

  @doc """
  Ends the leaving and used interpreters in which nothing runs any more.
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
  An interpreter, a member or a template, has ended.
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

    # It may have ended in its only call, before this process has received the message that it is used.
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
        Native.pool_bury(pid, "has ended: #{Backoff.describe(reason)}")
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

  # A substitute of the ended member now counts as a member of its own.
  defp without_substitute(all, old) do
    Map.new(all, fn
      {pid, %Member{substitutes: ^old} = member} -> {pid, %{member | substitutes: nil}}
      other -> other
    end)
  end

  # A failed restart is not tried again. Members that have exceeded a limit are still due.
  defp give_up_restart(members) do
    all =
      Map.new(members.all, fn {pid, member} ->
        {pid, if(member.due == :restart, do: %{member | due: nil}, else: member)}
      end)

    %{members | all: all}
  end

  defp failed(members, reason),
    do: %{members | backoff: Backoff.failed(members.backoff, members.name, reason)}

  @doc """
  The pause after a failure is over.
  """
  @spec retry(t()) :: t()
  def retry(members), do: settle(%{members | backoff: Backoff.resume(members.backoff)})

  @doc """
  Marks all running members as due to be replaced, and returns them. With `:fork`, members that are still starting are among them, because
  they are copies of the old template.
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
  Whether an interpreter takes no more calls: it is gone, or only finishes the calls that run in it.
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
  Marks interpreters as due to be replaced once they run.
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
  Marks running interpreters as due that have exceeded their limits of age or memory.
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
  The interpreters that may be chosen.
  """
  @spec running(t()) :: [pid()]
  def running(members), do: for({pid, %Member{status: :running}} <- members.all, do: pid)

  @doc """
  Whether as many interpreters take calls as there should be, and no more. A used one counts while the next one starts.
  """
  @spec settled?(t()) :: boolean()
  def settled?(members) do
    used =
      if for_one_call?(members), do: Enum.count(members.all, &match?({_pid, %{status: :used}}, &1)), else: 0

    running = length(running(members))
    running <= members.size and running + used >= members.size
  end

  @doc """
  Ends all interpreters at the same time, and waits until they are gone.
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
  The part of `Snex.Pool.info/1` about the interpreters.
  """
  @spec info(t()) :: map()
  def info(members) do
    %{
      size: members.size,
      running: length(running(members)),
      members:
        for({pid, member} <- members.all, do: Member.describe(member, pid)) |> Enum.sort_by(& &1.age, :desc),
      failure: Backoff.info(members.backoff),
      fork: members.template.fork? and members.template.fork,
      template: members.template.current
    }
  end

  defp native(milliseconds), do: System.convert_time_unit(milliseconds, :millisecond, :native)
end
