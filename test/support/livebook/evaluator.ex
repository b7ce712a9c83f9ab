defmodule Snex.Livebook.Evaluator do
  @moduledoc """
  Evaluates the cells of a notebook as Livebook does: in one process, one evaluation for each cell, which starts with the
  bindings and the environment (aliases, imports, requires) that the cell before it left. Does not trap exits: a linked
  process that crashes takes all of it down.

  Runs in a VM of its own, where Snex is what `Mix.install/2` makes of it, and nothing else of these tests is loaded.
  """

  alias Snex.Livebook.CellOutput

  @doc """
  Serves the VM that started this one, until standard input ends: each line is a request, each answer a line.
  """
  def serve do
    {:ok, _} = Application.ensure_all_started(:logger)
    Code.compiler_options(ignore_module_conflict: true)
    :ok = :logger.add_handler(__MODULE__, CellOutput, %{})
    output = CellOutput.start_link()
    show_errors_in_cells()
    serve(start(output), output)
  end

  # As Livebook does: what a process of the notebook writes to standard error goes to its group leader.
  defp show_errors_in_cells do
    pid = spawn_link(&forward_errors/0)
    Process.unregister(:standard_error)
    Process.register(pid, :standard_error)
  end

  defp forward_errors do
    receive do
      {:io_request, from, _reference, _request} = message ->
        with {:group_leader, leader} <- Process.info(from, :group_leader), do: send(leader, message)
        forward_errors()
    end
  end

  defp serve(evaluator, output) do
    with line when is_binary(line) <- IO.read(:stdio, :line) do
      request = line |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
      reply = serve_one(request, evaluator, output)
      IO.puts("answer:" <> Base.encode64(:erlang.term_to_binary(reply)))
      serve(evaluator, output)
    end
  end

  defp serve_one({:evaluate, id, parent, code, file}, evaluator, output) do
    ask(evaluator, {:evaluate, id, parent, code, file}, fn outcome ->
      {printed, logged} = CellOutput.take(output)
      Map.merge(outcome, %{printed: printed, logged: logged})
    end)
  end

  # What Livebook does when the user reconnects the runtime's evaluator, or closes the notebook of a shared one.
  defp serve_one(:shutdown, {pid, monitor}, _output) do
    Process.exit(pid, :shutdown)
    receive do: ({:DOWN, ^monitor, _, _, reason} -> %{down: reason})
  end

  defp ask({pid, monitor}, request, finish) do
    send(pid, {self(), request})

    receive do
      {^pid, outcome} -> finish.(outcome)
      {:DOWN, ^monitor, _, _, reason} -> finish.(%{down: reason})
    end
  end

  defp start(output) do
    spawn_monitor(fn ->
      Process.group_leader(self(), output)
      loop(%{nil => {[], Code.env_for_eval([])}})
    end)
  end

  # `contexts` has what each cell left.
  defp loop(contexts) do
    receive do
      {from, {:evaluate, id, parent, code, file}} ->
        {context, outcome} = evaluate(Map.fetch!(contexts, parent), code, file)
        send(from, {self(), outcome})
        loop(Map.put(contexts, id, context))
    end
  end

  defp evaluate({binding, env} = context, code, file) do
    env = %{env | file: file, line: 1}

    {result, diagnostics} =
      Code.with_diagnostics(fn ->
        try do
          quoted = Code.string_to_quoted!(code, file: file, columns: true)
          {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
          {{binding, env}, %{value: value, shown: inspect(value, pretty: true, width: 100)}}
        catch
          kind, reason -> {context, %{raised: Exception.format(kind, reason, __STACKTRACE__)}}
        end
      end)

    {context, outcome} = result
    {context, Map.put(outcome, :warnings, for(diagnostic <- diagnostics, do: diagnostic.message))}
  end
end
