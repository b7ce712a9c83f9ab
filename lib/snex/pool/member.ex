defmodule Snex.Pool.Member do
  @moduledoc false
  # One interpreter of a pool, as the pool's process knows it.

  alias Snex.Native

  # More calls than there will be.
  @no_limit 0xFFFF_FFFF_FFFF_FFFF

  @enforce_keys [:started, :limits]
  defstruct [:started, :limits, :substitutes, :due, :template, status: :starting]

  @typedoc """
    * `:started` - in milliseconds of the monotonic clock
    * `:limits` - its own of the option `:recycle`
    * `:substitutes` - the member that it is to replace
    * `:due` - why it is to be replaced
    * `:template` - the interpreter that it is a copy of
    * `:status` - see `Snex.Pool.Members`
  """
  @type t() :: %__MODULE__{
          started: integer(),
          limits: %{atom() => pos_integer() | nil},
          substitutes: pid() | nil,
          due: atom(),
          template: pid() | nil,
          status: :starting | :running | :used | :leaving
        }

  @doc """
  One that starts. Its limits are a little lower than those of the option, so that not all are replaced at the same time.
  """
  @spec new(map(), substitutes :: pid() | nil, template :: pid() | nil) :: t()
  def new(recycle, substitutes, template) do
    part = 1 - recycle.jitter * :rand.uniform()

    limits =
      for {name, limit} <- Map.take(recycle, [:requests, :memory, :age]), into: %{} do
        {name, limit && max(round(limit * part), 1)}
      end

    %__MODULE__{started: now(), limits: limits, substitutes: substitutes, template: template}
  end

  @doc """
  Lets an interpreter be chosen, for as many calls as it may have.
  """
  @spec join(t(), pid()) :: :ok | :noproc
  def join(member, pid), do: Native.pool_join(pid, member.limits.requests || @no_limit)

  @doc """
  Which limit is exceeded, of those that nobody else looks at.
  """
  @spec exceeded(t(), pid()) :: :age | :memory | nil
  def exceeded(%{limits: limits} = member, pid) do
    cond do
      limits.age != nil and age(member) >= limits.age -> :age
      limits.memory != nil and memory(pid) > limits.memory -> :memory
      true -> nil
    end
  end

  @doc """
  What runs in an interpreter: more than any number if someone has it for itself.
  """
  @spec load(pid()) :: non_neg_integer() | nil
  def load(pid), do: pid |> Native.pool_member() |> elem(0)

  @doc """
  How long ago it was started, in milliseconds.
  """
  @spec age(t()) :: non_neg_integer()
  def age(member), do: now() - member.started

  @doc """
  What `Snex.Pool.info/1` tells of it.
  """
  @spec describe(t(), pid()) :: map()
  def describe(member, pid) do
    {running, calls, _open?} = Native.pool_member(pid)

    %{
      interpreter: pid,
      status: member.status,
      due: member.due,
      calls_running: running || :checked_out,
      calls: calls,
      age: age(member),
      memory: memory(pid)
    }
  end

  defp memory(pid) do
    case Native.interpreter_info(pid) do
      {:ok, _requests, _in_flight, _environments, _objects, _queued, {memory, _shared}} -> memory
      :noproc -> 0
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
