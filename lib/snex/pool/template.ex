defmodule Snex.Pool.Template do
  @moduledoc false
  # The template of a pool with the option `:fork`: the interpreter that its members are copies of. The pool's process owns it and is linked to
  # it. It is not a member, so no call of the pool runs in it.
  #
  # `current` runs, and is what new members are copied from. `next` is starting, to replace it. Any other template has been replaced, and ends
  # once no member is being copied from it. Running members do not need their template; without a current one, none can be started.

  alias Snex.Interpreter
  alias Snex.Interpreter.Copy

  require Logger

  # How long to wait until a running template says which Python it runs, in ms. Normally it answers at once.
  @patience 5_000

  #   * `fork`: the option. With `:each_call`, each member serves one call, even if members are not copies.
  #   * `fork?`: whether members are copies of a template. False on systems, or with a Python, that cannot fork.
  #   * `renew?`: set by `Snex.Pool.restart/2`, until the next template starts.
  #   * `all`: the templates that have not ended, each with the time of its start, in ms of the monotonic clock.
  defstruct fork: false, fork?: false, current: nil, next: nil, renew?: false, all: %{}

  @type t() :: %__MODULE__{
          fork: boolean() | :each_call,
          fork?: boolean(),
          current: pid() | nil,
          next: pid() | nil,
          renew?: boolean(),
          all: %{pid() => integer()}
        }

  @doc """
  A state for a pool with this option `:fork` and this name. If the system cannot fork, the members are started as in other pools.
  """
  @spec new(boolean() | :each_call, term()) :: t()
  def new(false, _name), do: %__MODULE__{}

  def new(fork, name) do
    case Copy.check_system() do
      :ok -> %__MODULE__{fork: fork, fork?: true}
      {:error, error} -> do_without(%__MODULE__{fork: fork}, name, error.reason)
    end
  end

  defp do_without(template, name, reason) do
    Logger.warning(
      "the interpreters of the pool #{inspect(name || self())} are not copies, but are started one by one: #{reason}"
    )

    # From now on, all templates count as replaced, and end.
    %{template | fork?: false, current: nil, next: nil, renew?: false}
  end

  @doc """
  Whether a member can be started now.
  """
  @spec ready?(t()) :: boolean()
  def ready?(%{fork?: false}), do: true
  def ready?(template), do: template.current != nil and not renewing?(template)

  @doc """
  Whether the current template is being replaced.
  """
  @spec renewing?(t()) :: boolean()
  def renewing?(template), do: template.renew? or template.next != nil

  @doc """
  Starts the next template with the pool's options for interpreters, unless one is starting already. Returns `{:ok, template}`, or what
  the module's `start_link/1` returned instead. Followed by `started/3`, or the exit of the new template.
  """
  @spec start(t(), module(), keyword()) :: {:ok, t()} | term()
  def start(%{next: next} = template, _module, _options) when next != nil, do: {:ok, template}

  def start(template, module, options) do
    # No name: the module's own name would be that of the template that is being replaced.
    options = [name: nil, sync_start?: false] ++ Keyword.delete(options, :threads)

    with {:ok, pid} <- module.start_link(options) do
      # A call by hand, so that this process does not wait. The answer is the message `{{:snex_template, pid}, :ok}`.
      send(pid, {:"$gen_call", {self(), {:snex_template, pid}}, :await_start})
      {:ok, %{template | next: pid, renew?: false, all: Map.put(template.all, pid, now())}}
    end
  end

  @doc """
  Starts a member: a copy of the current template, or, if members are not copies, an interpreter with the pool's options.
  """
  @spec start_member(t(), module(), keyword()) :: term()
  def start_member(%{fork?: false} = template, module, options) do
    # No name: if the module gives one, all members would have the same. `:threads` is about the threads of a template, and has no use without
    # one.
    options = if options[:template], do: options, else: Keyword.delete(options, :threads)
    module.start_link([name: nil, sync_start?: false] ++ for_one_call(template) ++ options)
  end

  # A copy takes all other options from its template.
  def start_member(template, _module, options),
    do:
      Interpreter.fork(
        template.current,
        [sync_start?: false] ++ for_one_call(template) ++ Keyword.take(options, [:threads])
      )

  # Its only call has ended, so it does not have to stop gracefully.
  defp for_one_call(%{fork: :each_call}), do: [stop_timeout: 0]
  defp for_one_call(_template), do: []

  @doc """
  A template has started: from now on, members are its copies.
  """
  @spec started(t(), pid(), term()) :: t()
  def started(%{next: pid} = template, pid, name) do
    case implementation(pid) do
      other when other not in [nil, "CPython"] ->
        do_without(template, name, "a copy needs CPython, and this is #{other}")

      # If it has ended already, its exit signal follows.
      _cpython ->
        %{template | current: pid, next: nil}
    end
  end

  def started(template, _replaced, _name), do: template

  defp implementation(pid) do
    Interpreter.info(pid, @patience).implementation
  catch
    :exit, _reason -> nil
  end

  @doc """
  Has the template replaced before the next member starts, so that it reads changed files again.
  """
  @spec renew(t()) :: t()
  def renew(%{fork?: false} = template), do: template
  # A template that is starting may have read the old files.
  def renew(template), do: %{template | next: nil, renew?: true}

  @doc """
  A template has ended. Returns which it was: `:next`, which could not be started; `:current`, with its age in ms; or one that had been
  `:replaced`.
  """
  @spec ended(t(), pid()) :: {:next | {:current, non_neg_integer()} | :replaced, t()}
  def ended(template, pid) do
    {started, all} = Map.pop!(template.all, pid)
    template = %{template | all: all}

    case template do
      # The current template, if there is one, stays in use.
      %{next: ^pid} -> {:next, %{template | next: nil, renew?: false}}
      %{current: ^pid} -> {{:current, now() - started}, %{template | current: nil}}
      _other -> {:replaced, template}
    end
  end

  @doc """
  Ends the templates that have been replaced, except those in `used`, from which members are being copied.
  """
  @spec end_replaced(t(), [pid() | nil]) :: :ok
  def end_replaced(template, used) do
    for {pid, _started} <- template.all,
        pid not in [template.current, template.next | used],
        do: Process.exit(pid, {:shutdown, :recycled})

    :ok
  end

  defp now, do: System.monotonic_time(:millisecond)
end
