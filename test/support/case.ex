defmodule Snex.Case do
  @moduledoc """
  What most tests need: an interpreter, and ways to wait for things to happen.
  """

  use ExUnit.CaseTemplate

  alias Snex.Interpreter

  using do
    quote do
      import Snex.Case
      alias Snex.Error
      alias Snex.Interpreter
      alias Snex.Serde
    end
  end

  setup context do
    if context[:interpreter], do: {:ok, inp: start_interpreter!()}, else: :ok
  end

  @doc """
  Starts an interpreter that is stopped after the test. With `SNEX_TEST_COPIES` in the environment it is a copy of one that has these
  options: what is promised of interpreters is promised of copies as well.
  """
  def start_interpreter!(opts \\ []) do
    if System.get_env("SNEX_TEST_COPIES") in [nil, ""], do: start!(opts), else: start_copy!(opts)
  end

  defp start_copy!(opts) do
    {own, others} = Keyword.split(opts, [:name])
    start!([template: start!(others)] ++ own)
  end

  defp start!(opts), do: start_supervised!({Interpreter, opts}, id: make_ref())

  @doc """
  Calls `fun` in a process of its own: when it ends, so do its references to objects and environments.
  """
  def apart(fun), do: Task.await(Task.async(fn -> fun.() && nil end), :infinity)

  @doc """
  An init script whose `mark()` makes an object that `len(marks)` counts for as long as it lives.
  """
  def marks do
    """
    import weakref

    class Mark:
        pass

    marks = weakref.WeakSet()

    def mark():
        made = Mark()
        marks.add(made)
        return made
    """
  end

  @doc """
  Has environments that are made at run time lie below `folder` until the test ends. For tests that are not async.
  """
  def exchange_cache(folder) do
    before = System.get_env("XDG_CACHE_HOME")
    System.put_env("XDG_CACHE_HOME", folder)

    ExUnit.Callbacks.on_exit(fn ->
      if before, do: System.put_env("XDG_CACHE_HOME", before), else: System.delete_env("XDG_CACHE_HOME")
    end)
  end

  @doc """
  Starts interpreters that are stopped after the test, and returns what they are reached by: each kind of
  `t:GenServer.server/0` that there is on one node, with the pid behind it.
  """
  def start_named_interpreters! do
    name = :"interpreter_#{System.unique_integer([:positive])}"
    registry = :"registry_#{System.unique_integer([:positive])}"
    start_supervised!({Registry, keys: :unique, name: registry}, id: registry)

    pid = start_interpreter!(name: name)
    via = {:via, Registry, {registry, "key"}}
    global = {:global, {name, :anything}}

    [
      {pid, pid},
      {name, pid},
      {{name, node()}, pid},
      {via, start_interpreter!(name: via)},
      {global, start_interpreter!(name: global)}
    ]
  end

  @doc """
  Every Python that `bin/test` found on this machine, as `{name, path}`; otherwise the one on PATH.
  """
  def pythons do
    case System.get_env("SNEX_TEST_PYTHONS") do
      none when none in [nil, ""] ->
        [{"python", System.find_executable("python3") || System.find_executable("python")}]

      lines ->
        for line <- String.split(lines, "\n", trim: true) do
          [name, path] = String.split(line, " ", parts: 2)
          {name, path}
        end
    end
  end

  @doc """
  Waits until processes of the operating system are gone, and fails if they are not after a minute.
  """
  def await_gone(os_pids), do: os_pids |> Snex.ProcessTree.watch() |> Snex.ProcessTree.await_end()

  @doc """
  Whether a process of the operating system exists (also as a zombie).
  """
  def exists?(os_pid), do: File.exists?("/proc/#{os_pid}")

  @doc """
  Asks again and again, with a pause in between, until the answer is true; fails after a minute, with what `explain` says.
  For facts that no event announces.
  """
  def eventually(fun, attempts \\ 6_000, explain \\ fn -> "" end) do
    cond do
      fun.() ->
        :ok

      attempts == 0 ->
        flunk("still not true. " <> explain.())

      true ->
        receive do
        after
          10 -> eventually(fun, attempts - 1, explain)
        end
    end
  end
end
