defmodule Snex.ServeTest do
  # Not async: the processes that Python starts send to a registered name.
  use Snex.Case

  @python Path.expand("../support/python", __DIR__)

  setup do
    Process.register(self(), :served_test)
    {:ok, inp: start_interpreter!(environment: %{"PYTHONPATH" => @python})}
  end

  describe "a process that Python starts uses the interpreter's connection:" do
    test "a program of its own", %{inp: inp} do
      code = """
      import asyncio, served, socket, sys
      ours, theirs = socket.socketpair()
      process = await asyncio.create_subprocess_exec(
          sys.executable, served.__file__, str(theirs.fileno()), pass_fds=[theirs.fileno()]
      )
      theirs.close()
      await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
      return await process.wait()
      """

      assert Snex.pyeval(inp, code, timeout: 60_000) == {:ok, 0}
      assert_received "sent"
      assert_receive "cast", 60_000
    end

    for how <- ~w[fork forkserver spawn] do
      test "a process of multiprocessing, started by #{how}", %{inp: inp} do
        code = """
        import asyncio, multiprocessing, served, socket
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context(how).Process(target=served.run, args=(theirs,))
        process.start()
        theirs.close()
        await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
        await asyncio.to_thread(process.join)
        return process.exitcode
        """

        assert Snex.pyeval(inp, code, %{"how" => unquote(how)}, timeout: 60_000) == {:ok, 0}
        assert_received "sent"
        assert_receive "cast", 60_000
        # The interpreter's own connection is as it was.
        assert Snex.pyeval(inp, "return await snex.Elixir.Enum.sum([1, 2])") == {:ok, 3}
      end

      test "the workers of a ProcessPoolExecutor, started by #{how}", %{inp: inp} do
        code = """
        import asyncio, multiprocessing, os, served, tempfile
        from concurrent.futures import ProcessPoolExecutor
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "snex")
            async with await asyncio.start_unix_server(snex.io_loop_for_connection, path):
                pool = ProcessPoolExecutor(
                    2, multiprocessing.get_context(how), initializer=served.connect, initargs=(path,)
                )
                sums = await asyncio.gather(*(loop.run_in_executor(pool, served.add, i, i) for i in range(100)))
                await loop.run_in_executor(pool, served.log, "from a pool")
                await asyncio.to_thread(pool.shutdown)
        return sums
        """

        Snex.LogEvents.subscribe()

        {result, _log} =
          ExUnit.CaptureLog.with_log(fn ->
            Snex.pyeval(inp, code, %{"how" => unquote(how)}, timeout: 60_000)
          end)

        assert result == {:ok, for(i <- 0..99, do: 2 * i)}
        assert_receive {:event, :warning, "from a pool", %{python_function: "log"}}, 60_000
      end

      test "a process without a connection says so, started by #{how}", %{inp: inp} do
        code = """
        import asyncio, multiprocessing, served
        with multiprocessing.get_context(how).Pool(1) as pool:
            return await asyncio.to_thread(pool.apply, served.call_without_connection)
        """

        assert {:ok, message} = Snex.pyeval(inp, code, %{"how" => unquote(how)}, timeout: 60_000)
        assert message =~ ~r/not inside a Snex interpreter|belongs to the process/
        assert Snex.pyeval(inp, "return await snex.Elixir.Enum.sum([1, 2])") == {:ok, 3}
      end
    end
  end

  test "garbage ends that connection alone", %{inp: inp} do
    code = """
    import asyncio, socket
    ours, theirs = socket.socketpair()
    theirs.sendall(b"this is no frame at all")
    try:
        await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
    except Exception as error:
        return repr(error)
    """

    assert {:ok, "FrameError(" <> reason} = Snex.pyeval(inp, code, timeout: 60_000)
    assert reason =~ "expected a frame, got b'this is no frame at"
    assert Snex.pyeval(inp, "return await snex.Elixir.Enum.sum([1, 2])") == {:ok, 3}
  end

  test "a served process that dies in the middle of a call leaves nothing behind", %{inp: inp} do
    code = """
    import asyncio, os, socket, sys
    ours, theirs = socket.socketpair()
    child = '''
    import asyncio, os, socket, sys, snex
    async def main():
        streams = await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
        await snex.serve_forever(*streams, on_ready=use)
    async def use():
        await asyncio.gather(*(snex.Elixir.Process.sleep(snex.Atom("infinity")) for _ in range(100)), die())
    async def die():
        await snex.Elixir.Enum.sum([1])
        os._exit(7)
    asyncio.run(main())
    '''
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", child, str(theirs.fileno()), pass_fds=[theirs.fileno()]
    )
    theirs.close()
    await snex.io_loop_for_connection(*await asyncio.open_connection(sock=ours))
    from snex._elixir.client import current
    return await process.wait(), len(current()._waiting)
    """

    assert Snex.pyeval(inp, code, timeout: 60_000) == {:ok, {7, 0}}
  end

  @tag :tmp_dir
  test "a program connects to a server on a unix socket, as often as it likes", %{inp: inp, tmp_dir: folder} do
    program = Path.join(folder, "program.py")

    File.write!(program, """
    import asyncio, sys, snex

    async def main(path):
        for turn in range(2):
            async with snex.serve(*await asyncio.open_unix_connection(path)):
                assert await snex.Elixir.Enum.sum([1, 2]) == 3
                await snex.cast("Elixir.Kernel", "send", [snex.Atom("served_test"), ("turn", turn)])

        async def ready():
            assert await snex.call("Elixir.Enum", "sum", [[1, 2]]) == 3
            await snex.send(snex.Atom("served_test"), "ready")
            writer.write_eof()

        reader, writer = await asyncio.open_unix_connection(path)
        await snex.serve_forever(reader, writer, on_ready=ready)
        await snex.serve_forever(*await asyncio.open_unix_connection(path), lambda: sys.exit(7))

    asyncio.run(main(sys.argv[1]))
    """)

    code = """
    import asyncio, os, sys, tempfile
    # A socket's path may not be long.
    with tempfile.TemporaryDirectory() as short:
        path = os.path.join(short, "socket")
        async with await asyncio.start_unix_server(snex.io_loop_for_connection, path):
            process = await asyncio.create_subprocess_exec(sys.executable, program, path)
            return await process.wait()
    """

    assert Snex.pyeval(inp, code, %{"program" => program}, timeout: 60_000) == {:ok, 7}
    assert_receive {"turn", 0}, 60_000
    assert_receive {"turn", 1}, 60_000
    assert_received "ready"
    assert Snex.pyeval(inp, "return await snex.Elixir.Enum.sum([1, 2])") == {:ok, 3}
  end

  test "an interpreter has a connection: serve is for other processes", %{inp: inp} do
    for code <- ["async with snex.serve(None, None): pass", "await snex.serve_forever(None, None)"] do
      assert {:error, error} = Snex.pyeval(inp, code)
      assert error.reason == "this process is already connected to the VM"
    end
  end
end
