defmodule Snex.Interpreter.Sends do
  @moduledoc false
  # The option `:allow_send`: to whom `snex.send` may send.
  #
  # The body of a message is an external term `{to, data}`. The destination is decoded alone and first, without making atoms:
  # nothing else of a message that is refused is looked at.

  alias Snex.Options
  alias Snex.Serde.Decoder

  @type rules() :: :all | [atom() | pid() | {atom(), node()} | {:global, term()} | {:via, module(), term()}]

  @doc """
  Checks the option.
  """
  @spec check(term()) :: {:ok, rules()} | {:error, String.t()}
  def check(:all), do: {:ok, :all}
  def check(:none), do: {:ok, []}

  def check(rules) do
    if is_list(rules) and Enum.all?(rules, &rule?/1),
      do: {:ok, Enum.map(rules, &local/1)},
      else:
        Options.refuse(
          rules,
          ":all, :none, or a list of pids and names: name, {name, node}, {:global, name}, {:via, module, name}"
        )
  end

  defp rule?(name) when is_atom(name), do: name not in [nil, true, false, :undefined]
  defp rule?({:global, _name}), do: true
  defp rule?({:via, module, _name}), do: is_atom(module)
  defp rule?({name, node}), do: rule?(name) and is_atom(node)
  defp rule?(other), do: is_pid(other)

  # One form of a name on this node.
  defp local({name, node}) when node == node() and name != :global, do: name
  defp local(other), do: other

  @doc """
  Whether a message may be sent; if not, why.
  """
  @spec allow(Decoder.content(), rules()) :: :ok | {:refused, String.t()}
  def allow(_content, :all), do: :ok
  def allow({body, _handles}, rules), do: allow(body, rules)

  def allow(body, rules) do
    case destination(body) do
      {:ok, to} ->
        if allowed?(local(to), rules),
          do: :ok,
          else:
            {:refused,
             "#{inspect(to, limit: 10, printable_limit: 100)} is not among the processes that Python may send to"}

      :error ->
        {:refused, "its destination is unknown here"}
    end
  end

  # Not compressed (80): memory would be taken for whatever length such a term claims.
  defp destination(<<131, 104, 2, tag, rest::binary>>) when tag != 80 do
    # What follows is not looked at.
    {to, _used} = :erlang.binary_to_term(<<131, tag, rest::binary>>, [:safe, :used])
    {:ok, to}
  rescue
    ArgumentError -> :error
  end

  defp destination(_other), do: :error

  # A process may be named as well, and known by its name.
  defp allowed?(to, rules) when is_pid(to), do: Enum.any?(rules, &(&1 == to or whereis(&1) == to))
  defp allowed?(to, rules), do: to in rules

  defp whereis(pid) when is_pid(pid), do: pid

  defp whereis(name) do
    GenServer.whereis(name)
  rescue
    # A registry that is not there.
    ArgumentError -> nil
  end
end
