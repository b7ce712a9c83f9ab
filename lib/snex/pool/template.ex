defmodule Snex.Pool.Template do
  @moduledoc false
  # The interpreter that the members of a pool with the option `:fork` are copies of, for the pool's process, which owns it: it is linked to it,
  # and not one of its members, so no call of the pool runs there.
  #
  # There is one from the start of the pool to its end. Members go on without it, and start only when there is one that runs, `current`.
  # `next` starts, to take its place. Any other has been replaced, and ends once no member starts from it any more.

  alias Snex.Interpreter
  alias Snex.Interpreter.Copy

  require Logger

  # How long a template that runs may take to say what its Python is, in ms. It does so at once.
  @patience 5_000

  # `renew?` once `Snex.Pool.restart/2` was called, until the next one starts. `all` are those that have not ended yet, each with the time of
  # its start in ms of the monotonic clock.
  # `fork` is the option. With `:each_call`, each member is for one call, also where there is no fork.
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
  For a pool of that name, with its option `:fork`. Where there is no fork, its members start as those of other pools do.
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

    # What there is has been replaced.
    %{template | fork?: false, current: nil, next: nil, renew?: false}
  end

  @doc """
  Whether a member can be started.
  """
  @spec ready?(t()) :: boolean()
  def ready?(%{fork?: false}), do: true
  def ready?(template), do: template.current != nil and not renewing?(template)

  @doc """
  Whether another takes the place of the current one.
  """
  @spec renewing?(t()) :: boolean()
  def renewing?(template), do: template.renew? or template.next != nil

  @doc """
  Starts the next one with the pool's options for interpreters, unless one starts already: `{:ok, template}`, or what the module
  returned instead. It comes to `started/3`, or exits.
  """
  @spec start(t(), module(), keyword()) :: {:ok, t()} | term()
  def start(%{next: next} = template, _module, _options) when next != nil, do: {:ok, template}

  def start(template, module, options) do
    # A name that the module has would be that of an interpreter that is replaced.
    options = [name: nil, sync_start?: false] ++ Keyword.delete(options, :threads)

    with {:ok, pid} <- module.start_link(options) do
      # The answer is `{{:snex_template, pid}, :ok}`.
      send(pid, {:"$gen_call", {self(), {:snex_template, pid}}, :await_start})
      {:ok, %{template | next: pid, renew?: false, all: Map.put(template.all, pid, now())}}
    end
  end

  @doc """
  Starts a member: a copy of the current one, or, without fork, an interpreter with the pool's options.
  """
  @spec start_member(t(), module(), keyword()) :: term()
  def start_member(%{fork?: false} = template, module, options) do
    # Their names, if the module gives them one, would be the same. Without a template, there are no threads that it has.
    options = if options[:template], do: options, else: Keyword.delete(options, :threads)
    module.start_link([name: nil, sync_start?: false] ++ for_one_call(template) ++ options)
  end

  # All else, the copy takes from its template.
  def start_member(template, _module, options),
    do:
      Interpreter.fork(
        template.current,
        [sync_start?: false] ++ for_one_call(template) ++ Keyword.take(options, [:threads])
      )

  # Nobody wants to know how it ends.
  defp for_one_call(%{fork: :each_call}), do: [stop_timeout: 0]
  defp for_one_call(_template), do: []

  @doc """
  One has started: from now on, members are its copies.
  """
  @spec started(t(), pid(), term()) :: t()
  def started(%{next: pid} = template, pid, name) do
    case implementation(pid) do
      other when other not in [nil, "CPython"] ->
        do_without(template, name, "a copy needs CPython, and this is #{other}")

      # One that has ended already sends its exit.
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
  The next member is to be a copy of another one, which reads anew what has changed.
  """
  @spec renew(t()) :: t()
  def renew(%{fork?: false} = template), do: template
  # One that starts may have read the old.
  def renew(template), do: %{template | next: nil, renew?: true}

  @doc """
  One has ended: that was the `:next` one, which could not be started; the `:current` one, with its age in ms; or one that had been
  `:replaced`.
  """
  @spec ended(t(), pid()) :: {:next | {:current, non_neg_integer()} | :replaced, t()}
  def ended(template, pid) do
    {started, all} = Map.pop!(template.all, pid)
    template = %{template | all: all}

    case template do
      # The current one, if there is one, is good enough for a while.
      %{next: ^pid} -> {:next, %{template | next: nil, renew?: false}}
      %{current: ^pid} -> {{:current, now() - started}, %{template | current: nil}}
      _other -> {:replaced, template}
    end
  end

  @doc """
  Ends those that have been replaced, apart from those `used` by a member that starts.
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
