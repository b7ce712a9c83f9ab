defmodule Snex.Interpreter.OriginTest do
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Interpreter.Origin

  require Logger

  @moduletag :interpreter

  # What the code has around it that Python has called.
  @doc false
  def surroundings do
    %{leader: Process.group_leader(), callers: Process.get(:"$callers"), metadata: Logger.metadata()}
  end

  @doc false
  def report(to), do: send(to, {:surroundings, surroundings()})

  @call "await Elixir.Snex.Interpreter.OriginTest."

  test "a call has the group leader, $callers and metadata of the process that asked, and the request's number",
       %{
         inp: inp
       } do
    Process.put(:"$callers", [:earlier])
    Logger.metadata(order: 17)

    assert {:ok, found} = Snex.pyeval(inp, "return #{@call}surroundings()")
    assert found.leader == Process.group_leader()
    assert found.callers == [self(), :earlier]
    assert [order: 17, snex_request: request] = Enum.sort(found.metadata)
    assert is_integer(request) and request > 0
    # The caller's own stays as it was.
    assert Logger.metadata() == [order: 17]
  end

  test "each request has a number of its own", %{inp: inp} do
    code = "return (#{@call}surroundings())['metadata']"

    numbers =
      for _ <- 1..3 do
        {:ok, metadata} = Snex.pyeval(inp, code)
        metadata[:snex_request]
      end

    assert Enum.uniq(numbers) == numbers
  end

  test "a cast as well", %{inp: inp} do
    Logger.metadata(order: 18)
    {:ok, nil} = Snex.pyeval(inp, "#{@call}report(test, cast=True)", %{"test" => self()})
    test = self()
    leader = Process.group_leader()
    assert_receive {:surroundings, %{leader: ^leader, callers: [^test | _], metadata: metadata}}, 60_000
    assert metadata[:order] == 18 and is_integer(metadata[:snex_request])
  end

  test "capture_io captures what a called function prints, and nobody else's", %{inp: inp} do
    texts =
      1..20
      |> Task.async_stream(
        fn n ->
          capture_io(fn ->
            {:ok, :ok} = Snex.pyeval(inp, "return await Elixir.IO.puts(f'from call {n}')", %{"n" => n})
          end)
        end,
        max_concurrency: 20
      )
      |> Enum.map(fn {:ok, text} -> text end)

    assert texts == for(n <- 1..20, do: "from call #{n}\n")
  end

  test "threads and tasks of a request belong to it", %{inp: inp} do
    code = """
    import asyncio
    def work():
        return snex.call_sync("Elixir.Snex.Interpreter.OriginTest", "surroundings", [])
    async def task():
        return #{@call}surroundings()
    return [(await asyncio.to_thread(work))["callers"], (await asyncio.create_task(task()))["callers"]]
    """

    assert {:ok, [[first | _], [second | _]]} = Snex.pyeval(inp, code)
    assert {first, second} == {self(), self()}

    code = "return snex.call_sync('Elixir.Snex.Interpreter.OriginTest', 'surroundings', [])['callers']"
    assert {:ok, [^first | _]} = Snex.pyeval(inp, code, run: :thread)
  end

  test "a background task, after its request has been answered, has the number and nobody's surroundings", %{
    inp: inp
  } do
    env = Snex.make_env!(inp)

    code = """
    import asyncio
    go = asyncio.Event()
    async def later():
        await go.wait()
        #{@call}report(test)
    task = asyncio.create_task(later())
    """

    Logger.metadata(order: 19)
    assert {:ok, nil} = Snex.pyeval(env, code, %{"test" => self()})
    assert {:ok, nil} = Snex.pyeval(env, "go.set()")
    assert_receive {:surroundings, %{leader: leader, callers: nil, metadata: metadata}}, 60_000
    # That of the process which runs calls: the interpreter's.
    assert leader == inp |> Process.info(:group_leader) |> elem(1)
    assert [snex_request: number] = metadata
    assert is_integer(number)
  end

  test "code that runs for no request has nothing of it" do
    script = """
    import threading
    def work():
        import snex
        snex.call_sync("Elixir.Snex.Interpreter.OriginTest", "report", [test])
    start = lambda: threading.Thread(target=work).start()
    """

    # A plain thread begins with an empty context.
    inp = start_interpreter!(init_script: {script, %{"test" => self()}})
    assert {:ok, nil} = Snex.pyeval(inp, "start()")
    assert_receive {:surroundings, %{callers: nil, metadata: []}}, 60_000
  end

  test "a caller that is gone when its function begins is no error" do
    gone = spawn(fn -> :ok end)
    monitor = Process.monitor(gone)
    assert_receive {:DOWN, ^monitor, :process, ^gone, _reason}
    leader = Process.group_leader()

    assert Origin.adopt({7, gone}) == :ok
    assert Process.group_leader() == leader
    assert Process.get(:"$callers") == nil
    assert Logger.metadata() == [snex_request: 7]
  end
end
