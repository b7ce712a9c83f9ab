defmodule Snex.Interpreter.SecretsTest do
  # Reads all that is logged.
  use Snex.Case, async: false

  @moduletag :capture_log

  @secret "xyzzy-plugh"

  @doc false
  # The callback of a handler of `:logger`.
  def log(event, %{config: test}), do: send(test, {:report, formatted(event)})

  # As the default handler shows it, and everything else that is in it.
  defp formatted(event) do
    shown = :logger_formatter.format(event, %{single_line: false, chars_limit: :unlimited, depth: :unlimited})
    IO.chardata_to_string(shown) <> inspect(event, limit: :infinity, printable_limit: :infinity)
  end

  setup do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self(), level: :all})
    level = Logger.level()
    Logger.configure(level: :all)
    # Elixir's filter drops the reports of supervisors unless it is configured otherwise.
    translator = :logger.get_primary_config().filters[:logger_translator]
    :ok = :logger.remove_primary_filter(:logger_translator)

    on_exit(fn ->
      :logger.add_primary_filter(:logger_translator, translator)
      :logger.remove_handler(__MODULE__)
      Logger.configure(level: level)
    end)
  end

  @doc false
  def secret, do: @secret

  @doc false
  def script(word), do: {"y = word", %{"word" => word <> secret()}}

  # Starts an interpreter under a supervisor, kills Python, and returns what is logged until the supervisor has started another.
  defp reports(opts) do
    {:ok, supervisor} = Supervisor.start_link([{Interpreter, opts}], strategy: :one_for_one)
    first = child(supervisor)
    read = "import os; return os.environ.get('WORD'), globals().get('y')"
    values = Snex.pyeval!(first, read)
    monitor = Process.monitor(first)
    System.cmd("kill", ["-9", "#{Interpreter.os_pid(first)}"])
    assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, 60_000
    eventually(fn -> child(supervisor) not in [first, :restarting, :undefined] end)
    assert Snex.pyeval!(child(supervisor), read) == values
    Supervisor.stop(supervisor)
    {values, received()}
  end

  defp child(supervisor) do
    [{_id, pid, _type, _modules}] = Supervisor.which_children(supervisor)
    pid
  end

  defp received do
    receive do
      {:report, text} -> text <> received()
    after
      0 -> ""
    end
  end

  test "what functions return as variables and as init script is in no report of a crash" do
    secret = @secret

    for {opts, values} <- [
          {[environment: %{"WORD" => &__MODULE__.secret/0}], {@secret, nil}},
          {[environment: {:only, %{"WORD" => fn -> secret end}}], {@secret, nil}},
          {[environment: %{"WORD" => {__MODULE__, :secret, []}}], {@secret, nil}},
          {[init_script: {__MODULE__, :script, ["the "]}], {nil, "the " <> @secret}},
          {[init_script: fn -> {"y = word", %{"word" => secret}} end], {nil, @secret}}
        ] do
      assert {^values, reports} = reports(opts)
      assert reports =~ "supervisor_report"
      assert reports =~ "SIGKILL"
      refute reports =~ @secret
    end
  end

  test "a value that is given as it is is in the report" do
    assert {{@secret, nil}, reports} = reports(environment: %{"WORD" => @secret})
    assert reports =~ @secret
  end

  test "a start that fails shows no variables" do
    Process.flag(:trap_exit, true)
    secret = fn -> @secret end

    for opts <- [
          [wrap_exec: fn python, args -> {python, [:not_a_string | args]} end],
          [wrap_exec: fn _python, _args -> @secret end],
          [cd: "/nowhere"],
          [init_script: fn -> {@secret, %{bad: @secret}} end],
          [init_script: fn -> {:not_code, %{"bad" => @secret}} end]
        ] do
      assert {:error, error} = Interpreter.start_link([environment: %{"WORD" => secret}] ++ opts)
      refute inspect(error, limit: :infinity) =~ @secret
      assert Exception.message(error) =~ ~r/:wrap_exec|:cd|:init_script/
    end

    refute received() =~ @secret
  end
end
