defmodule Snex.Peer do
  @moduledoc """
  Other nodes for tests, on this machine, reached over its loopback interface.

  Each is started through its standard input and output: it ends with the VM that started it, and can be told to even
  when the connection between the nodes is gone.
  """

  import ExUnit.Assertions

  @host "127.0.0.1"

  @doc """
  Makes this VM a node, until the tests of the calling module are done. To be called in `setup_all`.

  Only in modules that are not `async`: pids that Python holds belong to a node of another name afterwards.
  """
  def start_distribution! do
    become_node!()
    ExUnit.Callbacks.on_exit(&Node.stop/0)
  end

  @doc """
  For `setup_all {Peer, :two_nodes}`: makes this VM a node, and starts another one, `b`, for the tests of the module.
  """
  def two_nodes(_context) do
    start_distribution!()
    {b, _control} = start_node!()
    {:ok, b: b}
  end

  @doc """
  For `setup {Peer, :await_rest}`: returns when what the test before has left to the garbage collector is gone, here and on `b`.
  """
  def await_rest(%{b: b}) do
    Snex.Case.eventually(fn -> at_rest?([node(), b]) end)
    :ok
  end

  @doc """
  Whether the trackers of all these nodes have nothing.
  """
  def at_rest?(nodes),
    do: Enum.all?(nodes, fn node -> node |> tracked() |> Map.values() |> Enum.all?(&(&1 == 0)) end)

  @doc """
  What the tracker of a node has: see `Snex.Remote.Tracker.counts/0`.
  """
  def tracked(node), do: :erpc.call(node, Snex.Remote.Tracker, :counts, [])

  @doc """
  Makes this VM a node, outside of tests.
  """
  def become_node! do
    start_epmd!()
    name = :"snex-#{System.pid()}@#{@host}"

    case Node.start(name, :longnames) do
      {:ok, _pid} ->
        :ok

      {:error, reason} ->
        flunk(
          "this VM cannot become the node #{name}, which these tests need: #{inspect(reason, pretty: true)}"
        )
    end
  end

  # The daemon that knows the ports of nodes. An `erl -name` would have started it; it stays, as it does then.
  defp start_epmd! do
    bundled = Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin", "epmd"])
    epmd = Enum.find([bundled, System.find_executable("epmd")], &(&1 && File.exists?(&1)))
    assert epmd, "there is no epmd on this machine, without which these tests cannot connect nodes"
    {output, status} = System.cmd(epmd, ["-daemon"], stderr_to_stdout: true)
    assert status == 0, "epmd does not start (status #{status}): #{output}"
    # It returns before the daemon listens.
    Snex.Case.eventually(fn -> match?({:ok, _names}, :erl_epmd.names(String.to_charlist(@host))) end)
  end

  @doc """
  Starts a node with Snex on it, which is stopped after the test, or the tests of the module where `setup_all` calls it. Returns its name and the process that controls it.
  """
  def start_node! do
    {node, control} = launch!(:peer.random_name(~c"snex"))
    ExUnit.Callbacks.on_exit(fn -> stop_node(control) end)
    {node, control}
  end

  @doc """
  Starts a node with Snex on it, outside of tests: whoever calls this stops it.
  """
  def launch!(name) do
    paths = for path <- :code.get_path(), path != ~c".", arg <- [~c"-pa", path], do: arg

    options = %{
      name: name,
      host: String.to_charlist(@host),
      longnames: true,
      connection: :standard_io,
      args: [~c"-setcookie", Atom.to_charlist(Node.get_cookie()), ~c"-connect_all", ~c"false" | paths],
      wait_boot: 60_000
    }

    case :peer.start(options) do
      {:ok, control, node} ->
        {:ok, _apps} = :peer.call(control, :application, :ensure_all_started, [:snex], 60_000)
        assert Node.connect(node), "#{node} has started, but does not answer this node"
        {node, control}

      {:error, reason} ->
        flunk("another node cannot be started: #{inspect(reason)}")
    end
  end

  @doc """
  Stops a node at once, and returns when it is gone.
  """
  def stop_node(control) do
    reference = Process.monitor(control)

    try do
      :peer.stop(control)
    catch
      :exit, _gone -> :ok
    end

    receive do
      {:DOWN, ^reference, :process, _pid, _reason} -> :ok
    end
  end

  @doc """
  Calls a function on a node, in a process that lives on: what it links to, and the references that it holds, stay until
  the test process is gone. Returns the result and the process.
  """
  def run(node, module, function, args) do
    {keeper, monitor} = Node.spawn_monitor(node, __MODULE__, :hold, [self(), module, function, args])

    receive do
      {^keeper, result} ->
        Process.demonitor(monitor, [:flush])
        {result, keeper}

      {:DOWN, ^monitor, :process, ^keeper, reason} ->
        flunk("#{inspect(module)}.#{function} failed on #{node}: #{inspect(reason)}")
    end
  end

  @doc false
  def hold(test, module, function, args) do
    Process.flag(:trap_exit, true)
    monitor = Process.monitor(test)
    result = apply(module, function, args)
    send(test, {self(), result})
    hold(monitor, result)
  end

  defp hold(monitor, result) do
    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> result
      _other -> hold(monitor, result)
    end
  end

  @doc """
  Starts an interpreter on a node, for as long as the test runs.
  """
  def start_interpreter!(node, opts \\ []) do
    {{:ok, interpreter}, _keeper} = run(node, Snex.Interpreter, :start_link, [opts])
    interpreter
  end
end
