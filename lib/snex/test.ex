defmodule Snex.Test do
  # ExUnit is there in tests.
  @compile {:no_warn_undefined, ExUnit.Callbacks}
  @dialyzer {:no_unknown, sandbox!: 3}

  @moduledoc """
  Helpers for tests of applications that use Snex, with ExUnit.

  An interpreter takes some time to start, so start one for the whole suite, in `test/test_helper.exs`, unless the
  application starts it:

      Snex.Test.start!(MyApp.Python)
      ExUnit.start()

  Each test gets a sandbox in this interpreter: an environment that no other test sees. Such tests can be `async: true`.

      defmodule MyApp.StatisticsTest do
        use ExUnit.Case, async: true

        setup do
          {:ok, py: Snex.Test.sandbox!(MyApp.Python, %{"xs" => [1, 2, 3]})}
        end

        test "the mean is a float", %{py: py} do
          assert Snex.pyeval(py, "import statistics; return statistics.fmean(xs)") == {:ok, 2.0}
        end
      end

  An environment has its own variables, but shares modules and the rest of the process with other tests. A test that
  changes those, or ends Python, uses `sandbox!/3` with `fork: true`: this copies the whole interpreter, within
  milliseconds.

  The output of a call goes to the group leader of the caller, so `ExUnit.CaptureIO` captures it. `capture/1` returns
  the output together with the result, with standard output and standard error separated.
  """

  alias Snex.Env
  alias Snex.Interpreter

  @typedoc "Python's output."
  @type printed() :: %{stdout: String.t(), stderr: String.t()}

  @doc """
  Starts an interpreter or a pool for the rest of the suite, and returns its pid.

  `child` is a module, or `{module, options}`. It is linked to the calling process, and restarted if a test ends it. If
  the start fails, its error is raised.

      iex> py = Snex.Test.start!({Snex.Interpreter, init_script: "x = 1"})
      iex> Snex.pyeval(py, "return x")
      {:ok, 1}
  """
  @spec start!(module() | {module(), keyword()}) :: pid()
  def start!(child) do
    options = [strategy: :one_for_one, max_restarts: 1_000]

    case Supervisor.start_link([child], options) do
      {:ok, supervisor} ->
        [{_id, pid, _type, _modules}] = Supervisor.which_children(supervisor)
        pid

      {:error, {:shutdown, {:failed_to_start_child, _id, %{__exception__: true} = error}}} ->
        raise error

      {:error, reason} ->
        raise "#{inspect(child)} cannot be started: #{Exception.format_exit(reason)}"
    end
  end

  @doc """
  Returns an environment for one test, with variables, in the given interpreter or pool, or with `fork: true` in a copy
  of the interpreter.

  The copy ends with the test. An interpreter can only be copied while no call runs in it (see
  `Snex.Interpreter.fork/2`), so a suite that forks an interpreter should run no other calls in it.

  Raises the `Snex.Error` if there is no such interpreter.

      iex> py = Snex.Test.start!({Snex.Interpreter, init_script: "x = 1"})
      iex> sandbox = Snex.Test.sandbox!(py, %{"y" => 2})
      iex> Snex.pyeval(sandbox, "x += y; return x")
      {:ok, 3}
      iex> Snex.pyeval(py, "return x")
      {:ok, 1}
  """
  @spec sandbox!(Interpreter.server(), Snex.vars(), fork: boolean()) :: Env.t()
  def sandbox!(interpreter, vars \\ %{}, opts \\ []) do
    if Keyword.validate!(opts, fork: false)[:fork] do
      copy = ExUnit.Callbacks.start_supervised!({Interpreter, template: interpreter}, id: make_ref())
      Snex.make_env!(copy, vars)
    else
      Snex.make_env!(interpreter, vars)
    end
  end

  @doc """
  Calls `fun` with options for a call of Snex, and returns its result together with Python's output.

      iex> py = Snex.Test.start!(Snex.Interpreter)
      iex> code = "import sys; print('out'); print('err', file=sys.stderr); return 1"
      iex> Snex.Test.capture(&Snex.pyeval(py, code, %{}, &1))
      {{:ok, 1}, %{stdout: "out\\n", stderr: "err\\n"}}

  Add other options to them: `Snex.Test.capture(&Snex.call(py, "main", [], [timeout: 60_000] ++ &1))`.
  """
  @spec capture((keyword() -> result)) :: {result, printed()} when result: term()
  def capture(fun) when is_function(fun, 1) do
    collector = spawn_link(fn -> collect([], []) end)

    try do
      result = fun.(output: collector)
      # The caller has printed before it had its result.
      send(collector, {:printed, self()})

      receive do
        {^collector, printed} -> {result, printed}
      end
    after
      Process.unlink(collector)
      Process.exit(collector, :kill)
    end
  end

  defp collect(stdout, stderr) do
    receive do
      {:snex_output, _interpreter, :stdout, bytes} ->
        collect([stdout | bytes], stderr)

      {:snex_output, _interpreter, :stderr, bytes} ->
        collect(stdout, [stderr | bytes])

      {:printed, asking} ->
        send(asking, {self(), %{stdout: IO.iodata_to_binary(stdout), stderr: IO.iodata_to_binary(stderr)}})
    end
  end
end
