defmodule Snex.Livebook do
  @moduledoc """
  Runs a notebook in a VM of its own, cell by cell, as Livebook does.
  """

  import ExUnit.Assertions

  @parts Enum.map(~w(cell_output evaluator), &Path.join(__DIR__, "livebook/#{&1}.ex"))

  @doc """
  Starts the VM. `folder` is where `Mix.install/2` and uv put what they make; `env` has more variables of its environment,
  or other values for them, as `Port.open/2` takes them.
  """
  def start(folder, env \\ []) do
    # None of this project's settings but the folder where cargo builds: what is built there need not be built again.
    target = Snex.OtherProject.target_dir()

    variables = [
      {~c"MIX_ENV", false},
      {~c"ERL_LIBS", false},
      {~c"MIX_BUILD_PATH", false},
      {~c"MIX_INSTALL_DIR", String.to_charlist(Path.join(folder, "installs"))},
      {~c"CARGO_TARGET_DIR", String.to_charlist(target)},
      # Environments with packages are made anew, from packages that uv has already.
      {~c"XDG_CACHE_HOME", String.to_charlist(Path.join(folder, "cache"))},
      {~c"UV_CACHE_DIR", String.to_charlist(uv_cache())}
    ]

    Port.open({:spawn_executable, System.find_executable("elixir")}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      line: 65_536,
      cd: folder,
      # Of two with the same name, the later one counts.
      env: variables ++ env,
      args: Enum.flat_map(@parts, &["-r", &1]) ++ ["-e", "Snex.Livebook.Evaluator.serve()"]
    ])
  end

  defp uv_cache do
    {folder, 0} = System.cmd("uv", ["cache", "dir"])
    String.trim(folder)
  end

  @doc """
  Evaluates a cell with what the cell `parent` left (`nil`: the first one). Returns a map:

    * `:value` and `:shown`, its text, or `:raised`, with file and line in the notebook, or `:down`, why the evaluator ended
    * `:printed`, `:logged` (a list of `{level, text}`) and `:warnings` of the compiler
  """
  def evaluate(vm, cell, parent) do
    # Livebook names a cell after its notebook, and counts the lines of each cell by themselves.
    file = "#{cell.path}#cell:#{cell.id}"
    outcome = request(vm, {:evaluate, cell.id, parent && parent.id, cell.code, file})

    with %{raised: text} <- outcome, do: %{outcome | raised: in_notebook(text, file, cell)}
  end

  defp in_notebook(text, file, cell) do
    Regex.replace(~r/#{Regex.escape(file)}:(\d+)/, text, fn _all, line ->
      "#{cell.path}:#{cell.line + String.to_integer(line) - 1}"
    end)
  end

  @doc """
  Ends the evaluator, with all that is linked to it; the VM lives on.
  """
  def shutdown(vm), do: request(vm, :shutdown)

  defp request(vm, request) do
    Port.command(vm, [Base.encode64(:erlang.term_to_binary(request)), "\n"])
    await(vm, [], [])
  end

  defp await(vm, line, others) do
    receive do
      {^vm, {:data, {:noeol, part}}} ->
        await(vm, [line, part], others)

      {^vm, {:data, {:eol, part}}} ->
        case IO.iodata_to_binary([line, part]) do
          "answer:" <> encoded -> :erlang.binary_to_term(Base.decode64!(encoded))
          other -> await(vm, [], [other, "\n" | others])
        end

      {^vm, {:exit_status, status}} ->
        flunk("the VM of the notebook exited with status #{status}:\n#{Enum.reverse(others)}")
    after
      300_000 -> flunk("the VM of the notebook does not answer:\n#{Enum.reverse(others)}")
    end
  end
end
