defmodule Snex.Stream.WireTest do
  # What the VM makes of the frames of streams, whatever order they arrive in. Not Python speaks here, but a puppet that writes and reads frames
  # as the code tells it to.
  use Snex.Case, async: true

  import ExUnit.CaptureIO

  @moduletag :capture_log

  setup do
    {_name, python} = hd(pythons())
    puppet = Path.expand("../../support/python/puppet.py", __DIR__)
    play = fn _python, [_main | args] -> {python, ["-S", "-E", puppet | args]} end
    {:ok, puppet: start_interpreter!(python: python, wrap_exec: play, stop_timeout: 500)}
  end

  test "items come in the order of their numbers, whichever descriptor they travel on", %{puppet: puppet} do
    for order <- [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], ended <- [0, 1, 2, 3] do
      frames =
        for n <- order,
            do: "items(#{3 * n}, [#{3 * n}, #{3 * n + 1}, #{3 * n + 2}], fd=#{Enum.random(["4", "PRINTS"])})"

      # The end may come before all of them.
      script = Enum.join(List.insert_at(frames, ended, "end(9, fd=PRINTS)"), "\n")
      assert puppet |> Snex.stream(script) |> Enum.to_list() == Enum.to_list(0..8)
    end

    assert_rest(puppet)
  end

  test "an error that overtakes items is raised behind them", %{puppet: puppet} do
    stream = Snex.stream(puppet, "error(3, 'late', fd=PRINTS); items(2, [2]); items(0, [0, 1])")
    assert_error(stream, [0, 1, 2], ~r/late/)
    assert_error(Snex.stream(puppet, "error(0, 'at once')"), [], ~r/at once/)
    assert_rest(puppet)
  end

  test "a stream without items is empty", %{puppet: puppet} do
    assert puppet |> Snex.stream("end(0)") |> Enum.to_list() == []
    assert puppet |> Snex.stream("items(0, []); end(0)") |> Enum.to_list() == []
    assert_rest(puppet)
  end

  test "items are credited frame by frame, when the consumer asks for more", %{puppet: puppet} do
    script = """
    items(0, [1]); items(1, [2, 3, 4])
    assert taken() == 1
    items(4, [5])
    assert taken() == 3
    assert taken() == 1
    items(5, [6])
    end(6)
    """

    assert puppet |> Snex.stream(script) |> Enum.to_list() == Enum.to_list(1..6)
    assert_rest(puppet)
  end

  test "frames that have come together are credited one by one", %{puppet: puppet} do
    script = """
    items(0, [0])
    items(1, [1], fd=PRINTS); items(2, [2, 3], fd=PRINTS); printed("all there")
    assert [taken(), taken(), taken()] == [1, 1, 2]
    end(4)
    """

    items =
      puppet
      |> Snex.stream(script, output: self())
      |> Enum.map(fn item ->
        if item == 0, do: assert_receive({:snex_output, ^puppet, :stdout, "all there"}, 60_000)
        item
      end)

    assert items == [0, 1, 2, 3]
    assert_rest(puppet)
  end

  test "one that is cut short is cancelled before the enumeration returns", %{puppet: puppet} do
    assert puppet |> Snex.stream("items(0, [1, 2]); cancelled()") |> Enum.take(1) == [1]
    assert puppet |> Snex.stream("items(0, [1, 2]); cancelled()") |> Enum.take(2) == [1, 2]
    # The puppet has got it before it got this.
    assert puppet |> Snex.stream("items(0, [3]); end(1)") |> Enum.to_list() == [3]
    assert_rest(puppet)
  end

  test "how it is to run, and how many items may be in flight, are in the request", %{puppet: puppet} do
    show = "items(0, [flags, *(255 if x is None else x for x in rest)]); end(4)"
    asked = fn opts -> puppet |> Snex.stream(show, [demand: 7] ++ opts) |> Enum.to_list() end
    assert asked.([]) == [0x20, 255, 255, 7]
    assert asked.(timeout: 60_000) == [0x20, 255, 255, 7]
    assert asked.(run: :thread) == [0x22, 255, 255, 7]
    assert asked.(run: :loop, returns: :auto) == [0x64, 255, 255, 7]
    assert asked.(returns: :object) == [0x28, 255, 255, 7]
  end

  test "the end of an interpreter is behind the items that have arrived", %{puppet: puppet} do
    Process.flag(:trap_exit, true)
    script = "items(0, [1, 2]); items(2, [3]); items(9, [9]); os._exit(3)"

    error =
      assert_error(Snex.stream(puppet, script), [1, 2, 3], ~r/status 3/)

    assert %Error{code: :interpreter_exited, reason: {:exit_status, 3}} = error
  end

  test "what was printed before an item is printed before it comes", %{puppet: puppet} do
    script = "items(0, [1]); printed('a'); items(1, [2], fd=PRINTS); printed('b'); end(2, fd=PRINTS)"

    printed =
      capture_io(fn -> puppet |> Snex.stream(script) |> Enum.each(&IO.write("<#{&1}>")) end)

    assert printed in ["a<1><2>b", "<1>a<2>b", "<1>ab<2>", "ab<1><2>", "a<1>b<2>"]
    assert_rest(puppet)
  end

  test "parts of a stream as the answer to an ordinary request end the interpreter", %{puppet: puppet} do
    Process.flag(:trap_exit, true)
    assert {:error, %Error{code: :internal_error, reason: reason}} = Snex.pyeval(puppet, "items(0, [1])")
    assert reason =~ "a part of a stream as the answer to request"
  end

  test "the end of a stream as the answer to an ordinary request ends the interpreter", %{puppet: puppet} do
    Process.flag(:trap_exit, true)
    assert {:error, %Error{code: :internal_error, reason: reason}} = Snex.pyeval(puppet, "end(1)")
    assert reason =~ "a part of a stream as the answer to request"
  end

  test "parts of a stream that nobody waits for any more are dropped", %{puppet: puppet} do
    assert Snex.pyeval(puppet, "write(0x83, number, b'\\x83a\\x01'); items(0, [1]); items(7, [1])") ==
             {:ok, 1}

    assert puppet |> Snex.stream("items(0, [1]); cancelled(); items(1, [2]); end(2)") |> Enum.take(1) == [1]
    assert puppet |> Snex.stream("items(0, [3]); end(1)") |> Enum.to_list() == [3]
    assert_rest(puppet)
  end

  test "a second end of a stream ends the interpreter", %{puppet: puppet} do
    Process.flag(:trap_exit, true)
    stream = Snex.stream(puppet, "end(1); end(1)")
    assert %Error{code: :internal_error, reason: reason} = catch_error(Enum.to_list(stream))
    assert reason =~ "a second answer to request"
  end

  describe "what cannot be true is an error of that stream, behind the items before it, which is cancelled:" do
    # What Python says, the items, and the reason.
    for {name, lie, items, reason} <- [
          {"a frame that has come before", "items(0, [0, 1]); items(0, [0, 1])", [0, 1],
           "item 0 of a stream was sent twice"},
          {"a frame that begins in one that has come", "items(0, [0, 1]); items(1, [1, 2])", [0, 1],
           "item 1 of a stream was sent twice"},
          {"an early frame that has come before", "items(0, [0]); items(5, [5]); items(5, [5, 6])", [0],
           "item 5 of a stream was sent twice"},
          {"a frame that reaches into an early one", "items(0, [0]); items(3, [3]); items(1, [1, 2, 3])", [0],
           "item 3 of a stream was sent twice"},
          {"a frame that reaches over an early one", "items(3, [3]); items(0, [0, 1, 2, 3, 4])", [],
           "item 3 of a stream was sent twice"},
          {"a frame behind the end", "items(1, [1]); end(2); items(2, [2])", [],
           "a stream has sent more items than the 2 with which it ended"},
          {"a frame that reaches over the end", "end(2); items(0, [0, 1, 2])", [],
           "a stream has sent more items than the 2 with which it ended"},
          {"an end before what has come", "items(0, [0, 1, 2]); end(2)", [0, 1, 2],
           "a stream claims to have ended after 2 items, but has sent 3"},
          {"an end before what has come early", "items(0, [0]); items(4, [4, 5]); end(5)", [0],
           "a stream claims to have ended after 5 items, but has sent 6"},
          {"an end before any item", "items(0, [0]); write(0x83, number, b'\\x83w\\x03nil', 0)", [0],
           "a stream claims to have ended after 0 items, but has sent 1"},
          {"a failure before what has come", "items(0, [0, 1]); error(1, 'late')", [0, 1],
           "a stream claims to have ended after 1 items, but has sent 2"},
          {"more items than were asked for", "items(0, list(range(11)))", [],
           "a stream has sent 11 items, but was asked for 10"},
          {"an early frame of more items than were asked for", "items(10, [0])", [],
           "a stream has sent 11 items, but was asked for 10"},
          {"a frame with a huge number", "items(2**64 - 1, [0])", [],
           "a stream has sent 18446744073709551616 items, but was asked for 10"},
          {"an end with a huge number", "end(2**64 - 1)", [],
           "a stream has sent 18446744073709551615 items, but was asked for 10"},
          {"items that are no list", "items(0, [0]); write(0x8C, number, b'\\x83a\\x01', 1)", [0],
           "the items of a stream are not a list"},
          {"items that are a list with something else at its end",
           "items(0, [0]); write(0x8C, number, b'\\x83l\\0\\0\\0\\x01a\\x01a\\x01', 1)", [0],
           "the items of a stream are not a list: [1 | 1]"},
          {"fewer items than the list claims",
           "items(0, [0]); write(0x8C, number, b'\\x83l\\0\\0\\0\\x02a\\x01j', 1)", [0, 1, []],
           "cannot be decoded"}
        ] do
      test name, %{puppet: puppet} do
        # Of what is answered, Python need not hear.
        script = if unquote(lie) =~ "0x83", do: unquote(lie), else: "#{unquote(lie)}; cancelled()"
        error = assert_error(Snex.stream(puppet, script, demand: 10), unquote(items), ~r/./)
        assert %Error{code: :internal_error, reason: reason} = error
        assert reason =~ unquote(reason)
        # Nobody else is concerned.
        assert Enum.to_list(Snex.stream(puppet, "items(0, [1]); end(1)")) == [1]
        assert_rest(puppet)
      end
    end
  end

  test "frames without items say nothing, wherever they claim to be", %{puppet: puppet} do
    script =
      "items(0, [0]); items(0, []); items(7, []); items(2**64 - 1, []); items(1, []); items(1, [1]); end(2)"

    assert puppet |> Snex.stream(script) |> Enum.to_list() == [0, 1]
    assert_rest(puppet)
  end

  test "a failure that counts no items is behind those that have arrived", %{puppet: puppet} do
    assert_error(
      Snex.stream(puppet, "items(0, [0, 1]); items(3, [3]); error(0, 'no memory')"),
      [0, 1],
      ~r/no memory/
    )

    assert_rest(puppet)
  end

  test "as many items as were asked for may be early", %{puppet: puppet} do
    script = """
    items(9, [9]); items(5, [5, 6, 7, 8]); items(0, [0, 1, 2, 3, 4])
    assert taken() + taken() + taken() == 10
    items(19, [19]); items(10, [10, 11, 12, 13, 14, 15, 16, 17, 18])
    assert taken() + taken() == 10
    end(20)
    """

    assert puppet |> Snex.stream(script, demand: 10) |> Enum.to_list() == Enum.to_list(0..19)
    assert_rest(puppet)
  end

  # The items, and then the error.
  defp assert_error(stream, items, message) do
    test = self()

    error =
      assert_raise Error, message, fn ->
        Enum.each(stream, &send(test, {:item, &1}))
      end

    assert received([]) == items
    error
  end

  defp received(items) do
    receive do
      {:item, item} -> received([item | items])
    after
      0 -> Enum.reverse(items)
    end
  end

  # Nothing is under way any more.
  defp assert_rest(puppet) do
    eventually(fn -> Interpreter.info(puppet).requests_in_flight == 0 end)
    refute_received _
  end
end
