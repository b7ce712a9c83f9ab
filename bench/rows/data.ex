defmodule Bench.Data do
  @moduledoc """
  Large values on their way, in both directions.
  """

  alias Bench.{Python, Row, Stats}

  @mebibyte 1024 * 1024

  def rows do
    [
      ints_to_python: &ints_to_python/1,
      ints_to_elixir: &ints_to_elixir/1,
      maps_to_python: &maps_to_python/1,
      maps_to_elixir: &maps_to_elixir/1,
      binary_to_python: &binary_to_python/1,
      binary_to_elixir: &binary_to_elixir/1
    ]
  end

  def ints, do: Enum.to_list(1..1_000_000)

  def maps do
    for i <- 1..100_000,
        do: %{"id" => i, "name" => "name #{i}", "score" => i / 7, "tags" => ["red", "round"]}
  end

  defp ints_to_python(context) do
    %{
      to_python(context, ints(), "ints")
      | name: "ints_to_python",
        what: "a list of 1,000,000 ints; floor: pickle.loads",
        target: 1.3
    }
  end

  defp maps_to_python(context) do
    %{
      to_python(context, maps(), "maps")
      | name: "maps_to_python",
        what: "100,000 maps of 4 keys; floor: pickle.loads",
        target: 1.1
    }
  end

  defp ints_to_elixir(context) do
    %{
      to_elixir(context, ints())
      | name: "ints_to_elixir",
        what: "a list of 1,000,000 ints; floor: binary_to_term",
        target: 2.2
    }
  end

  defp maps_to_elixir(context) do
    %{
      to_elixir(context, maps())
      | name: "maps_to_elixir",
        what: "100,000 maps of 4 keys; floor: binary_to_term",
        target: 2.0
    }
  end

  defp to_python(context, value, floor) do
    row(Python.floor(context, floor, [context.runs]), times(context, fn -> send_it(context, value) end))
  end

  defp to_elixir(context, value) do
    env = Snex.make_env!(context.interpreter, %{"x" => value})
    binary = :erlang.term_to_binary(value)
    floor = times(context, fn -> :erlang.binary_to_term(binary) end)
    row(floor, times(context, fn -> fetch(env) end))
  end

  defp binary_to_python(context) do
    value = Snex.Serde.binary(:binary.copy(<<7>>, 64 * @mebibyte))

    %{
      row(Python.floor(context, "pipe", [context.runs]), times(context, fn -> send_it(context, value) end))
      | name: "binary_to_python",
        what: "64 MiB as bytes; floor: 64 MiB through a pipe, Python to Python",
        target: 1.3
    }
  end

  defp binary_to_elixir(context) do
    env = Snex.make_env!(context.interpreter)
    Snex.pyeval!(env, "x = bytes(#{64 * @mebibyte})")

    %{
      row(Python.floor(context, "pipe", [context.runs]), times(context, fn -> fetch(env) end))
      | name: "binary_to_elixir",
        what: "64 MiB as bytes; floor: 64 MiB through a pipe, Python to Python",
        target: 1.3
    }
  end

  defp send_it(context, value),
    do: {:ok, nil} = Snex.pyeval(context.interpreter, nil, %{"x" => value}, timeout: 60_000)

  defp fetch(env), do: {:ok, _} = Snex.pyeval(env, "return x", timeout: 60_000)

  # Each time in a process of its own, whose heap is clean.
  defp times(context, fun) do
    for _ <- 0..context.runs do
      Task.await(Task.async(fn -> Stats.time(fun) end), :infinity)
    end
    |> tl()
  end

  defp row(floor, value),
    do: %Row{name: nil, what: nil, floor: floor, value: value, unit: :ns, goal: :at_most, target: nil}
end
