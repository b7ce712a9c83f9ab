defmodule Snex.WireTest do
  # Not async: it measures the memory of this VM.
  use Snex.Case

  @moduletag :capture_log
  @moduletag :tmp_dir

  @ready 0x81
  @refused 0x82
  @result 0x83
  @error 0x84
  @cancelled 0x89
  @items 0x8C
  @pull 0x8D
  @close 0x8E

  # Flag: a table of handles.
  @handles 0x10

  # What Python may send, see docs/protocol.md.
  @kinds 0x81..0x8F

  # How many liars run at a time.
  @at_once 4

  # Bytes that the VM may need at most beyond what it has: a few interpreters, and their buffers.
  @jump 64 * 1024 * 1024

  setup do
    Process.flag(:trap_exit, true)
    {:ok, bystander: start_interpreter!()}
  end

  # A frame, with whatever its header claims.
  defp frame(kind, id, body, claims \\ []) do
    length = Keyword.get(claims, :length, byte_size(body))
    flags = Keyword.get(claims, :flags, 0)
    # That of the first frame has no cause.
    cause = if kind in [@ready, @refused], do: "", else: <<0::64>>
    <<"SX", kind, flags, id::little-64, length::little-64, cause::binary, body::binary>>
  end

  defp etf(term), do: :erlang.term_to_binary(term)

  defp greeting(changes \\ %{}) do
    fields = %{
      "protocol" => 4,
      "version" => "0",
      "python" => "0",
      "implementation" => "Liar",
      "executable" => "liar.py",
      "encoder" => "pure",
      "pid" => 1
    }

    etf(Map.merge(fields, changes))
  end

  # Starts a liar, and asks it something: how it started, or what it answered, and how it ended.
  defp ask(dir, greeting, answer, last) do
    {_name, python} = hd(pythons())
    here = Path.join(dir, to_string(System.unique_integer([:positive])))
    File.mkdir!(here)
    [said, answered] = for name <- ["greeting", "answer"], do: Path.join(here, name)
    File.write!(said, greeting)
    File.write!(answered, answer)
    liar = Path.expand("../support/python/liar.py", __DIR__)
    lie = fn _python, args -> {python, ["-S", "-E", liar, said, answered, to_string(last) | args]} end

    Process.flag(:trap_exit, true)

    case Interpreter.start_link(python: python, wrap_exec: lie, output: :discard, stop_timeout: 500) do
      {:error, error} ->
        {:not_started, error}

      {:ok, inp} ->
        answer = Snex.pyeval(inp, "return 1", timeout: if(last == :linger, do: 300, else: 60_000))
        if last == :linger, do: Process.exit(inp, :kill)
        assert_receive {:EXIT, ^inp, reason}, 60_000
        refute_received _
        {answer, reason}
    end
  end

  # Tells each of the lies, `{answer, last, check}`, with a true greeting. `check` gets what became of it.
  defp tell_all(dir, bystander, lies) do
    truth = frame(@ready, 0, greeting())
    all(dir, bystander, for({answer, last, check} <- lies, do: {truth, answer, last, check}))
  end

  defp all(dir, bystander, lies) do
    peak =
      peak_memory(fn ->
        lies
        |> Task.async_stream(fn {said, answer, last, _check} -> ask(dir, said, answer, last) end,
          max_concurrency: @at_once,
          timeout: 120_000
        )
        |> Enum.zip(lies)
        |> Enum.each(fn {{:ok, outcome}, {said, answer, last, check}} ->
          assert check.(outcome), """
          it said     #{inspect(said, limit: 100)}
          it answered #{inspect(answer, limit: 100)}, and then #{last}
          what came   #{inspect(outcome)}
          """

          assert Snex.pyeval(bystander, "return 42") == {:ok, 42}
        end)
      end)

    flush_exits()
    assert peak < @jump, "memory has jumped by #{peak} bytes"
    count(length(lies))
  end

  # Tasks that have come to their end.
  defp flush_exits do
    receive do
      {:EXIT, _pid, :normal} -> flush_exits()
    after
      0 -> :ok
    end
  end

  # For the record: `SNEX_WIRE_COUNT=file mix test` appends how many bad frames each test has tried.
  defp count(lies) do
    if path = System.get_env("SNEX_WIRE_COUNT"), do: File.write!(path, "#{lies}\n", [:append])
  end

  # By how many bytes the resident memory of this VM has risen at most meanwhile.
  defp peak_memory(fun) do
    for process <- Process.list(), do: :erlang.garbage_collect(process)

    case File.write("/proc/self/clear_refs", "5") do
      :ok ->
        before = resident("VmRSS")
        fun.()
        resident("VmHWM") - before

      # Not Linux, or not allowed.
      {:error, _} ->
        fun.()
        0
    end
  end

  defp resident(field) do
    [_, kib] = Regex.run(~r/^#{field}:\s+(\d+) kB$/m, File.read!("/proc/self/status"))
    String.to_integer(kib) * 1024
  end

  # The call and the interpreter end with the same error, which says what was seen.
  defp broken(seen) do
    fn outcome ->
      match?(
        {{:error, %Error{code: :internal_error, reason: reason}},
         %Error{code: :internal_error, reason: reason}}
        when is_binary(reason),
        outcome
      ) and elem(outcome, 1).reason =~ seen
    end
  end

  # The call has been answered by then.
  defp broken_later(answer, seen) do
    fn
      {^answer, %Error{code: :internal_error, reason: reason}} -> reason =~ seen
      _other -> false
    end
  end

  defp not_started(seen) do
    fn
      {:not_started, %Error{code: :internal_error, reason: reason}} -> reason =~ seen
      _other -> false
    end
  end

  describe "ends the interpreter with :internal_error, which says what was seen, and memory does not jump:" do
    test "kinds that there are not", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for kind <- Enum.uniq(Enum.to_list(0..8) ++ Enum.to_list(0..255//7) ++ [0x80, 0x8C, 0xFF]),
            kind not in @kinds do
          name = "0x" <> String.downcase(Base.encode16(<<kind>>))
          {frame(kind, 1, etf(1)), :wait, broken("frame of unknown kind #{name}")}
        end
      )
    end

    test "flags", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for flags <- [1, 2, 3, 4, 8, 16, 32, 64, 128, 255],
            kind <- [@result, 0x88],
            {kind, flags} != {@result, @handles} do
          name = "0x" <> Base.encode16(<<flags>>, case: :lower)
          {frame(kind, 1, etf(1), flags: flags), :wait, broken("with unknown flags #{name}")}
        end
      )
    end

    test "lengths that nothing can have", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for length <- [2 ** 47 + 1, 2 ** 48, 2 ** 62, 2 ** 63 - 1, 2 ** 63, 2 ** 63 + 1, 2 ** 64 - 1],
            kind <- [@result, @error, 0x85, 0x87, 0x88, 0x8A] do
          {frame(kind, 1, "", length: length), :wait, broken("#{length} bytes, more than memory can hold")}
        end
      )
    end

    test "lengths beyond the limit", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for length <- [2 ** 31 + 2 ** 20 + 1, 2 ** 32, 2 ** 40, 2 ** 47],
            kind <- [@result, @error, 0x85, 0x88, 0x8A] do
          {frame(kind, 1, "", length: length), :wait, broken("#{length} bytes, and the limit is 2147483648")}
        end
      )
    end

    test "lengths that lie, and frames cut short", %{tmp_dir: dir, bystander: bystander} do
      whole = frame(@result, 1, etf("whole"))

      cuts =
        for length <- 1..(byte_size(whole) - 1) do
          {got, expected} = if length < 28, do: {length, 28}, else: {length - 28, byte_size(whole) - 28}
          seen = "the stream ended inside a frame, after #{got} of #{expected} bytes"
          {binary_part(whole, 0, length), :close, broken(seen)}
        end

      lies =
        for length <- [2, 1_000, 2 ** 20, 2 ** 27, 2 ** 31],
            kind <- [@result, 0x88] do
          seen = "after 1 of #{length} bytes"
          {frame(kind, 1, "x", length: length), :close, broken(seen)}
        end

      tell_all(dir, bystander, cuts ++ lies)
    end

    test "answers to requests that never were", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for id <- [0, 2, 3, 1000, 2 ** 40, 2 ** 62, 2 ** 62 + 1, 2 ** 63, 2 ** 63 + 1, 2 ** 64 - 1],
            kind <- [@result, @error] do
          {frame(kind, id, etf(1)), :wait, broken("an answer to request #{id}, which was never made")}
        end
      )

      tell_all(
        dir,
        bystander,
        for id <- [0, 2, 2 ** 40, 2 ** 62 + 1, 2 ** 63, 2 ** 63 + 2] do
          {frame(@cancelled, id, ""), :wait, broken(", which was never made")}
        end
      )
    end

    test "items of requests, and frames about sources, that never were", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for id <- [0, 2, 2 ** 40, 2 ** 62 + 1, 2 ** 63 + 1, 2 ** 64 - 1] do
          {frame(@items, id, etf([:item])), :wait, broken("an answer to request #{id}, which was never made")}
        end
      )

      tell_all(
        dir,
        bystander,
        for id <- [0, 1, 2, 2 ** 40, 2 ** 63, 2 ** 63 + 1, 2 ** 64 - 1],
            {kind, body} <- [{@pull, <<1::little-32>>}, {@close, ""}] do
          {frame(kind, id, body), :wait, broken("a frame about source #{id}, which does not exist")}
        end
      )
    end

    test "a PULL without a number", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for body <- ["", <<1::24>>, <<1::40>>, etf(1)] do
          {frame(@pull, 1, body), :wait, broken("a PULL with a body of #{byte_size(body)} bytes")}
        end
      )
    end

    test "answers that come twice", %{tmp_dir: dir, bystander: bystander} do
      first = frame(@result, 1, etf(:first))

      tell_all(
        dir,
        bystander,
        for kind <- [@result, @error], between <- ["", frame(0x88, 1, "\x01printed")] do
          {first <> between <> frame(kind, 1, etf(:second)), :wait,
           broken_later({:ok, :first}, "a second answer to request 1")}
        end
      )
    end

    test "a greeting later on", %{tmp_dir: dir, bystander: bystander} do
      tell_all(dir, bystander, [
        {frame(@ready, 0, greeting()), :wait, broken("a frame of kind Ready after the handshake")},
        {frame(@refused, 0, greeting()), :wait, broken("a frame of kind Refused after the handshake")}
      ])
    end

    test "bytes that are no frame", %{tmp_dir: dir, bystander: bystander} do
      :rand.seed(:exsss, 7)

      tell_all(
        dir,
        bystander,
        for size <- [1, 2, 3, 19, 20, 21, 100, 70_000], _ <- 1..5 do
          bytes = :rand.bytes(size)
          bytes = if match?("S" <> _, bytes), do: "T" <> bytes, else: bytes
          {bytes, :wait, broken("expected a frame, got \"")}
        end ++
          [
            {"Traceback (most recent call last):\n", :wait,
             broken(~S|got "Traceback (most recent call last):\n"|)},
            {"SY" <> <<0::18*8>>, :wait, broken("got \"SY")},
            {frame(@result, 1, etf(1)) |> String.replace_prefix("SX", "XS"), :wait, broken("got \"XS")}
          ]
      )
    end

    test "a first frame that is no greeting", %{tmp_dir: dir, bystander: bystander} do
      pair = <<109, 1::32, "k">>
      map = &<<131, 116, &1::32, &2::binary>>
      deep = String.duplicate(<<104, 1>>, 500_000)
      bomb = <<131, 80, 2 ** 31::32>> <> :zlib.compress(String.duplicate(<<0>>, 10_000_000))

      bodies = [
        "",
        <<131>>,
        "no term",
        etf(1),
        etf([]),
        etf(%{}),
        map.(2 ** 32 - 1, ""),
        map.(1, pair),
        map.(1, pair <> <<109, 2 ** 32 - 1::32, "v">>),
        map.(1, pair <> <<108, 2 ** 32 - 1::32>>),
        map.(1, pair <> <<105, 2 ** 32 - 1::32>>),
        map.(1, pair <> <<111, 2 ** 32 - 1::32>>),
        map.(1, pair <> deep),
        <<131, deep::binary>>,
        <<131>> <> String.duplicate(<<108, 1::32>>, 200_000),
        <<131, 108, 2 ** 32 - 1::32>>,
        <<131, 105, 2 ** 32 - 1::32>>,
        <<131, 112, 2 ** 32 - 1::32>>,
        bomb,
        greeting() <> "more",
        greeting(%{"version" => [1]}),
        greeting(%{"version" => self()}),
        etf(Map.delete(:erlang.binary_to_term(greeting()), "encoder"))
      ]

      unreadable = for body <- bodies, kind <- [@ready, @refused], do: {kind, body}
      # A refusal needs no more than two fields.
      unreadable =
        Enum.reject(unreadable, fn {kind, body} ->
          kind == @refused and body in [List.last(bodies)]
        end)

      others = for kind <- @kinds, kind not in [@ready, @refused], do: {kind, greeting()}

      all(
        dir,
        bystander,
        for({kind, body} <- unreadable, do: {frame(kind, 0, body), "", :wait, not_started("cannot be read")}) ++
          for({kind, body} <- others, do: {frame(kind, 0, body), "", :wait, not_started("should be READY")}) ++
          for length <- [2 ** 20 + 1, 2 ** 32, 2 ** 47] do
            {frame(@ready, 0, "", length: length), "", :wait, not_started("has #{length} bytes")}
          end ++
          for protocol <- [0, 1, 2, 3, 5, -1, 2 ** 31, 2 ** 60, "1", :one] do
            {frame(@ready, 0, greeting(%{"protocol" => protocol})), "", :wait,
             not_started("speaks protocol 4")}
          end ++
          [
            {frame(@refused, 0, greeting(%{"reason" => "no"})), "", :wait, not_started("refused it: no")},
            {"sh: python: not found\n", "", :wait, not_started("got \"sh: python: not found")},
            {String.duplicate("x", 1_000_000), "", :wait, not_started("expected a frame")}
          ]
      )
    end

    test "any frame with one or two bytes changed, or an end that is not its own", %{
      tmp_dir: dir,
      bystander: bystander
    } do
      :rand.seed(:exsss, String.to_integer(System.get_env("SNEX_WIRE_SEED", "7")))
      whole = frame(@result, 1, etf(%{"a" => [1, 2.5, {:b, "c"}]}))

      tell_all(
        dir,
        bystander,
        for _ <- 1..String.to_integer(System.get_env("SNEX_WIRE_ROUNDS", "100")) do
          {changed(whole, :rand.uniform(2)), :exit, &contained/1}
        end
      )
    end
  end

  defp changed(bytes, 0), do: bytes

  defp changed(bytes, times) do
    at = :rand.uniform(byte_size(bytes)) - 1
    <<before::binary-size(at), _byte, rest::binary>> = bytes
    changed(<<before::binary, :rand.uniform(256) - 1, rest::binary>>, times - 1)
  end

  # Whatever it was: an answer or an error of the call, and an interpreter that ended because Python did, or because of it.
  defp contained({answer, %Error{code: code}}) do
    code in [:interpreter_exited, :internal_error] and
      match?({tag, _} when tag in [:ok, :error], answer)
  end

  defp contained(_other), do: false

  describe "a table of handles" do
    defp with_table(count, table, term), do: <<count::little-32, table::binary, term::binary>>
    defp place(index), do: {<<"snex.Object", 1::1>>, index, "thing"}

    test "that lies ends the interpreter", %{tmp_dir: dir, bystander: bystander} do
      id = <<7::little-64>>

      lies =
        for body <- [
              "",
              <<1>>,
              <<0, 0, 0>>,
              with_table(1, "", ""),
              with_table(1, binary_part(id, 0, 7), ""),
              with_table(2, id, etf(1)),
              with_table(2 ** 31, id, etf(1)),
              with_table(2 ** 32 - 1, "", etf(1)),
              with_table(2 ** 32 - 1, String.duplicate(id, 1_000), etf(1)),
              with_table(2 ** 29, String.duplicate(id, 100_000), "")
            ],
            kind <- [@result, 0x85, 0x86, 0x87] do
          seen = "a table of handles that does not fit into a body of #{byte_size(body)} bytes"
          {frame(kind, 1, body, flags: @handles), :wait, broken(seen)}
        end

      others =
        for kind <- [@error, 0x88, @cancelled, 0x8A] do
          {frame(kind, 1, with_table(1, id, etf(1)), flags: @handles), :wait,
           broken("with unknown flags 0x10")}
        end

      tell_all(dir, bystander, lies ++ others)
    end

    test "without a term behind it is an error of the call", %{tmp_dir: dir, bystander: bystander} do
      undecoded? =
        &match?(
          {{:error, %Error{code: :internal_error, reason: "a term from Python cannot be decoded" <> _}},
           _end},
          &1
        )

      tell_all(
        dir,
        bystander,
        for rest <- ["", <<131>>, "no term", <<131, 108, 2 ** 32 - 1::32>>],
            count <- [0, 1, 3] do
          body = with_table(count, String.duplicate(<<7::little-64>>, count), rest)
          {frame(@result, 1, body, flags: @handles), :exit, undecoded?}
        end
      )
    end

    test "may name memory only that has been handed over", %{tmp_dir: dir, bystander: bystander} do
      tell_all(
        dir,
        bystander,
        for number <- [0, 7, 2 ** 63 - 1] do
          body = with_table(1, <<2 ** 63 + number::little-64>>, etf(place(0)))

          {frame(@result, 1, body, flags: @handles), :wait,
           broken("memory #{number} that has not been handed over")}
        end
      )
    end

    test "may have any numbers, and places that it has nothing for", %{tmp_dir: dir, bystander: bystander} do
      ids = [1, 2, 2 ** 62, 2 ** 63 - 1, 1]
      table = for id <- ids, into: <<>>, do: <<id::little-64>>

      placed? = fn expected ->
        fn
          {{:ok, value}, _end} -> expected.(value)
          _other -> false
        end
      end

      whole? =
        placed?.(fn [one, two, three, four, five] ->
          for(
            %Snex.Object{id: id, handle: handle} <- [one, two, three, four, five],
            is_reference(handle),
            do: id
          ) ==
            ids
        end)

      unchanged? = placed?.(&(&1 == [place(5), place(-1), place(2 ** 70), place(nil), place(1.0)]))

      # Many of them, of one object.
      many = with_table(100_000, String.duplicate(<<7::little-64>>, 100_000), etf(1))

      tell_all(dir, bystander, [
        {frame(@result, 1, with_table(5, table, etf(Enum.map(0..4, &place/1))), flags: @handles), :exit,
         whole?},
        {frame(@result, 1, with_table(5, table, etf(Enum.map([5, -1, 2 ** 70, nil, 1.0], &place/1))),
           flags: @handles
         ), :exit, unchanged?},
        {frame(@result, 1, with_table(0, "", etf([place(0)])), flags: @handles), :exit,
         placed?.(&(&1 == [place(0)]))},
        {frame(@result, 1, many, flags: @handles), :exit, placed?.(&(&1 == 1))}
      ])

      # This process has had them.
      eventually(fn ->
        :erlang.garbage_collect()
        match?(%{objects: 0}, Snex.Native.resources_count())
      end)
    end
  end

  test "a body that claims to be long, and comes slowly, takes what has come", %{
    tmp_dir: dir,
    bystander: bystander
  } do
    tell_all(
      dir,
      bystander,
      for length <- [2 ** 20, 2 ** 27, 2 ** 31], kind <- [@result, 0x88] do
        timed_out? = &match?({{:error, %Error{code: :response_timeout}}, :killed}, &1)
        {frame(kind, 1, String.duplicate("x", 100_000), length: length), :linger, timed_out?}
      end
    )
  end
end
