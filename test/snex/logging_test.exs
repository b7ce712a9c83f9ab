defmodule Snex.LoggingTest do
  # Not async: it listens to all that is logged.
  use Snex.Case

  @setup """
  import logging
  logger = logging.getLogger("my.app")
  logger.setLevel(1)
  logger.propagate = False
  handler = snex.LoggingHandler(default_metadata={"application": "shop", "tags": ["a"]}, extra_metadata_keys={"user"})
  logger.handlers = [handler]
  """

  setup do
    Snex.LogEvents.subscribe()
    {:ok, inp: start_interpreter!(init_script: @setup)}
  end

  # Quietly: what is logged here is nothing to read.
  defp pyeval!(inp, code, vars \\ %{}) do
    {result, _log} = ExUnit.CaptureLog.with_log(fn -> Snex.pyeval!(inp, code, vars, timeout: 60_000) end)
    result
  end

  test "levels of Python become levels of Elixir", %{inp: inp} do
    levels = [
      {1, :debug},
      {10, :debug},
      {11, :info},
      {15, :info},
      {20, :info},
      {21, :notice},
      {29, :notice},
      {30, :warning},
      {31, :error},
      {40, :error},
      {41, :critical},
      {50, :critical},
      {51, :alert},
      {59, :alert},
      {60, :emergency},
      {100, :emergency}
    ]

    for {python, elixir} <- levels do
      pyeval!(inp, "logger.log(level, 'at %d', level)", %{"level" => python})
      # It is there before the call has returned.
      message = "at #{python}"
      assert_received {:event, ^elixir, ^message, _meta}
    end
  end

  test "an event carries file, line, time and what Python knows", %{inp: inp} do
    before = System.os_time(:microsecond)

    code = %Snex.Code{
      src: "def work():\n    logger.info('hi', extra={'user': 7, 'other': 8})\nwork()",
      file: "/app/job.ex",
      line: 10
    }

    pyeval!(inp, code)
    assert_received {:event, :info, "hi", meta}

    assert %{
             file: ~c"/app/job.ex",
             line: 11,
             application: "shop",
             tags: ["a"],
             user: 7,
             domain: [:snex, :python]
           } =
             meta

    assert meta.time in before..System.os_time(:microsecond)

    assert %{
             python_logger_name: "my.app",
             python_log_level: "INFO",
             python_module: "job",
             python_function: "work"
           } =
             meta

    assert meta.python_process_id == Interpreter.os_pid(inp)

    assert %{
             python_process_name: "MainProcess",
             python_thread_name: "MainThread",
             pid: ^inp,
             snex_interpreter: ^inp
           } = meta

    assert is_integer(meta.python_thread_id)
    refute Map.has_key?(meta, :other)
    refute Map.has_key?(meta, :python_task_name)
    refute Map.has_key?(meta, :python_exception)

    pyeval!(
      inp,
      "import asyncio; asyncio.current_task().set_name('chore'); logger.info('hi'); await asyncio.sleep(0)"
    )

    assert_received {:event, :info, "hi", %{python_task_name: "chore"}}
  end

  test "an exception is part of the message, and its type is metadata", %{inp: inp} do
    pyeval!(inp, "try: 1 / 0\nexcept ZeroDivisionError: logger.exception('oh')")
    assert_received {:event, :error, "oh\nTraceback" <> traceback, %{python_exception: "ZeroDivisionError"}}
    assert traceback =~ "ZeroDivisionError: division by zero"

    # Nothing was being handled.
    pyeval!(inp, "logger.error('oh', exc_info=True)")
    assert_received {:event, :error, "oh" <> _, meta}
    refute Map.has_key?(meta, :python_exception)
  end

  test "application and domain are Snex's own where the handler is given no others", %{inp: inp} do
    code = """
    logger.handlers = [snex.LoggingHandler(logging.INFO, default_metadata=metadata, extra_metadata_keys=None)]
    logger.debug("not this")
    logger.info("hi", extra={"user": 7})
    """

    pyeval!(inp, code, %{"metadata" => nil})
    assert_received {:event, :info, "hi", %{application: :snex, domain: [:snex, :python]} = meta}
    refute Map.has_key?(meta, :user)
    refute_received {:event, :debug, _, _}

    pyeval!(inp, code, %{"metadata" => %{"application" => :mine, "domain" => [:mine]}})
    assert_received {:event, :info, "hi", %{application: :mine, domain: [:mine]}}
    assert {:error, %Error{exception: %{type: "TypeError"}}} = Snex.pyeval(inp, "snex.LoggingHandler(20, {})")
  end

  test "events keep their order among each other and before the answer, from threads as well", %{inp: inp} do
    pyeval!(inp, """
    import asyncio
    def work(thread):
        for i in range(200):
            logger.info("%d %d", thread, i)
    await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(4)))
    work(4)
    """)

    for thread <- 0..4, i <- 0..199 do
      message = "#{thread} #{i}"
      assert_received {:event, :info, ^message, %{python_function: "work"}}
    end

    refute_received {:event, _, _, _}
  end

  test "values that cannot travel are shown by their repr, and the event is not lost", %{inp: inp} do
    pyeval!(inp, "logger.info('x\\udc80', extra={'user': {1, 2}.__iter__()})")
    assert_received {:event, :info, "'x\\udc80'", %{user: "<set_iterator object at " <> _}}
  end

  test "a record that cannot be formatted is reported by Python, and disturbs nobody", %{inp: inp} do
    assert ExUnit.CaptureIO.capture_io(fn ->
             assert Snex.pyeval(inp, "logger.info('%d', 'x'); return 1") == {:ok, 1}
           end) =~ "--- Logging error ---"
  end

  test "needs neither :allow nor new atoms" do
    inp = start_interpreter!(init_script: @setup, allow: :none, atoms: :existing)
    pyeval!(inp, "logger.info('in spite of all')")
    assert_received {:event, :info, "in spite of all", %{python_logger_name: "my.app"}}

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        Snex.pyeval!(inp, """
        handler._default = {snex.Atom("no_such_" + "atom_as_this"): 1}
        logger.info('lost')
        """)
      end)

    assert log =~ "a log event from Python is invalid"
    assert log =~ "names an atom that does not exist"
  end

  test "what Elixir does not want to hear is left out by Logger", %{inp: inp} do
    Logger.configure(level: :warning)
    pyeval!(inp, "logger.info('no'); logger.warning('yes')")
    assert_received {:event, :warning, "yes", _meta}
    refute_received {:event, :info, _, _}
  end
end
