defmodule Snex.OtherVM do
  @moduledoc """
  A second Erlang VM as an operating system process, which tests may kill.
  """

  import ExUnit.Assertions

  @doc """
  Runs Elixir code in a VM of its own. The code tells the test with `tell.(term)`; `await/1` receives that.
  `hear.()` waits for `say/1`. With `through: [program | args]` that program gets the command to run at its end.
  """
  def start(code, opts \\ []) do
    prelude =
      "tell = fn term -> IO.puts(\"told:\" <> Base.encode64(:erlang.term_to_binary(term))) end\n" <>
        "hear = fn -> IO.gets(\"\") end\n"

    ebins = Enum.flat_map([:snex], &["-pa", Application.app_dir(&1, "ebin")])
    elixir = System.find_executable("elixir")
    [program | args] = Keyword.get(opts, :through, []) ++ [elixir | ebins] ++ ["-e", prelude <> code]

    port =
      Port.open({:spawn_executable, System.find_executable(program)}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 100_000,
        args: args
      ])

    {port, []}
  end

  @doc """
  The next term that the other VM tells.
  """
  def await({port, _} = vm) do
    receive do
      {^port, {:data, {:eol, "told:" <> encoded}}} ->
        :erlang.binary_to_term(Base.decode64!(String.trim(encoded)))

      {^port, {:data, {:eol, line}}} ->
        log(vm, line)

      {^port, {:exit_status, status}} ->
        flunk("the other VM exited with status #{status}")
    after
      60_000 -> flunk("the other VM says nothing")
    end
  end

  defp log(vm, line) do
    IO.puts(:stderr, "other VM: #{line}")
    await(vm)
  end

  @doc """
  Lets `hear.()` in the other VM return.
  """
  def say({port, _}), do: Port.command(port, "go on\n")

  @doc """
  Sends a signal to the other VM itself.
  """
  def kill({_port, _}, os_pid, signal), do: System.cmd("kill", ["-#{signal}", to_string(os_pid)])
end
