defmodule Snex.LivebookTest do
  use Snex.Case, async: true

  alias Snex.Livebook
  alias Snex.Livebook.Cell
  alias Snex.Livebook.Notebook

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @notebooks Path.expand("../examples/livebook", __DIR__)

  describe "a notebook" do
    test "has cells with their lines, and the outputs that it keeps" do
      cells =
        Notebook.parse("""
        <!-- livebook:{"persist_outputs":true} -->

        # Title

        ```elixir
        Mix.install([])
        ```

        ## Section

        Text with `code`, and a block that is only shown:

        ```python
        print("no cell")
        ```

        <!-- livebook:{"reevaluate_automatically":true} -->

        ```elixir
        IO.puts("a\\n\\nb")
        1
        ```

        <!-- livebook:{"output":true} -->

        ```
        a

        b
        ```

        <!-- livebook:{"output":true} -->

        ```
        1
        ```

        ````elixir
        ~S"\""
        ```
        "\""
        ````
        """)

      assert [
               %Cell{line: 6, code: "Mix.install([])", section: nil, outputs: []},
               %Cell{line: 20, code: "IO.puts(" <> _, section: "Section", outputs: ["a\n\nb", "1"]},
               %Cell{line: 39, code: "~S\"\"\"\n```\n\"\"\"", outputs: []}
             ] = cells
    end

    test "that Livebook would not understand is refused, with the line" do
      assert_raise RuntimeError, ~r/line 3: .* no end/, fn -> Notebook.parse("# T\n\n```elixir\n1") end
      assert_raise RuntimeError, ~r/line 2: the title/, fn -> Notebook.parse("```elixir\n1\n```") end
      assert_raise RuntimeError, ~r/line 2: .* comment/, fn -> Notebook.parse("# T\n<!-- livebook:{-->") end
    end
  end

  describe "the evaluator" do
    setup %{tmp_dir: folder}, do: {:ok, vm: Livebook.start(folder)}

    # Cells one below the other from line 10 on, each evaluated after the one before it.
    defp evaluate(vm, codes) do
      {outcomes, _parent} =
        codes
        |> Enum.with_index(fn code, index -> %Cell{id: "#{index}", code: code, line: (index + 1) * 10} end)
        |> Enum.map_reduce(nil, fn cell, parent ->
          cell = %{cell | path: Path.expand("some folder/some.livemd", @notebooks)}
          outcome = Livebook.evaluate(vm, cell, parent)
          {outcome, if(outcome[:raised], do: parent, else: cell)}
        end)

      outcomes
    end

    test "carries variables, aliases, imports, requires and modules from cell to cell", %{vm: vm} do
      assert [_, %{value: {"some folder", 3, "X", false, 7}}] =
               evaluate(vm, [
                 """
                 import Enum, only: [sum: 1]
                 alias String, as: Text
                 require Integer
                 defmodule Seven, do: def(seven, do: 7)
                 x = 3
                 """,
                 ~S|{Path.basename(__DIR__), sum([x]), Text.upcase("x"), Integer.is_even(x), Seven.seven()}|
               ])
    end

    test "shows what is printed and logged in the cell that runs, also by other processes", %{vm: vm} do
      assert [
               %{printed: "one ö\ntwo\n", logged: [], shown: ":ok"},
               %{printed: "", logged: [warning: "careful"]},
               %{printed: "later\n"}
             ] =
               evaluate(vm, [
                 """
                 IO.puts("one ö")
                 Task.await(Task.async(fn -> IO.puts("two") end))
                 """,
                 """
                 require Logger
                 printer = spawn(fn -> receive do: (from -> send(from, IO.puts("later"))) end)
                 Task.await(Task.async(fn -> Logger.warning("careful") end))
                 """,
                 "send(printer, self())\nreceive do: (:ok -> :done)"
               ])
    end

    test "reports a cell that raises with the notebook's file and line, and goes on", %{vm: vm} do
      assert [_, match_error, syntax_error, in_module, %{value: 1}] =
               evaluate(vm, [
                 "x = 1",
                 "x = 2\n\n{:ok, _} = x",
                 "\n(1",
                 "defmodule Wrong do\n  def wrong, do: 1 + hd([])\nend\n\nWrong.wrong()",
                 "x"
               ])

      notebook = Path.join(@notebooks, "some folder/some.livemd")
      assert match_error.raised =~ "(MatchError)"
      assert match_error.raised =~ "#{notebook}:22: (file)"
      assert syntax_error.raised =~ "(TokenMissingError) token missing on #{notebook}:31:"
      assert in_module.raised =~ "#{notebook}:41: Wrong.wrong/0"
      assert in_module.raised =~ "#{notebook}:44: (file)"
    end

    test "goes down with what is linked to it", %{vm: vm} do
      assert [%{down: :crashed, printed: "still shown\n"}] =
               evaluate(vm, [
                 "IO.puts(\"still shown\")\nspawn_link(fn -> exit(:crashed) end)\nreceive do: (:never -> :ok)"
               ])
    end
  end

  describe "the notebook" do
    @describetag :slow
    test "first_steps.livemd runs, and its Python ends with it", %{tmp_dir: folder} do
      {vm, last, outputs} = run!("first_steps.livemd", folder)
      assert outputs =~ " 11.50 °C are  52.70 °F\n"
      assert outputs =~ ~r/livemd#cell:cell-9", line 6, in half\n.*\n(.*\n)?ValueError: invalid literal/

      assert [python] = os_pids(vm, last)
      assert exists?(python)
      assert_leaves_nothing(vm, [python])
    end

    test "text_in_an_image.livemd runs, with copies of a Python that has loaded a model", %{tmp_dir: folder} do
      linux? = :os.type() == {:unix, :linux}

      {vm, last, _outputs} =
        run!("text_in_an_image.livemd", folder, log: if(linux?, do: [], else: [:warning]))

      pythons = os_pids(vm, last)
      # The template is the third, and has one warden with its copies.
      assert length(pythons) == if(linux?, do: 3, else: 2)
      assert_leaves_nothing(vm, pythons, if(linux?, do: 1, else: 2))
    end

    test "streaming_tokens.livemd runs", %{tmp_dir: folder} do
      {vm, last, outputs} = run!("streaming_tokens.livemd", folder)
      assert outputs =~ "What comes to your mind first?"
      assert [python] = os_pids(vm, last)
      assert_leaves_nothing(vm, [python])
    end

    test "calling_elixir.livemd runs, and Python's log is a log of Elixir", %{tmp_dir: folder} do
      {vm, last, outputs} = run!("calling_elixir.livemd", folder, log: ~w[info warning]a)
      assert outputs =~ "▓▓▓░\n▓▓▓▓\n"
      assert outputs =~ "[info] water is on\n[warning] only 3 scones left\n"
      # The cell that starts a baker has run twice.
      assert [_waiter, _baker, _another] = pythons = os_pids(vm, last)
      assert_leaves_nothing(vm, pythons)
    end

    test "pool.livemd runs, survives a crash, and leaves no Python when its supervisor stops", context do
      {vm, last, outputs} = run!("pool.livemd", context.tmp_dir, log: [:error, :warning])
      assert outputs =~ ~r/\[error\] GenServer #PID<.*> terminating\n.*SIGSEGV/s

      assert [_one, _two, _three] = os_pids = value!(vm, last, "os_pids")
      # Stopping returns when they are gone: nothing is waited for, and the VM lives on.
      for os_pid <- os_pids, do: refute(exists?(os_pid))
      assert [] = os_pids(vm, last)
      assert_leaves_nothing(vm, [])
    end
  end

  # Evaluates all cells, and then all but the setup cell once more, as a user may. Returns the VM, the last cell, and what
  # the first round showed.
  defp run!(name, folder, opts \\ []) do
    vm = Livebook.start(folder)
    [setup | cells] = Notebook.cells!(Path.join(@notebooks, name))
    assert setup.section == nil and setup.code =~ "Mix.install("
    assert %{value: :ok, warnings: []} = Livebook.evaluate(vm, setup, nil)

    [shown, _again] =
      for _ <- 1..2 do
        for {cell, parent} <- Enum.zip(cells, [setup | cells]), into: "" do
          check!(cell, Livebook.evaluate(vm, cell, parent), Keyword.get(opts, :log, []))
        end
      end

    {vm, List.last(cells), shown}
  end

  defp check!(cell, outcome, levels) do
    where = "#{Path.relative_to_cwd(cell.path)}:#{cell.line}"
    unless is_map_key(outcome, :value), do: flunk("#{where}: " <> (outcome[:raised] || inspect(outcome)))
    assert outcome.warnings == [], where
    # Livebook formats cells when it saves a notebook.
    assert IO.iodata_to_binary(Code.format_string!(cell.code)) == cell.code, where

    assert Enum.all?(outcome.logged, fn {level, _text} -> level in levels end),
           inspect({where, outcome.logged})

    shown = Enum.filter(Enum.map([outcome.printed, outcome.shown], &comparable/1), &(&1 != ""))
    kept = Enum.filter(Enum.map(cell.outputs, &comparable/1), &(&1 != ""))

    assert kept == shown,
           "#{where}: the notebook keeps #{inspect(kept)}, and this was shown: #{inspect(shown)}"

    outcome.printed <> Enum.map_join(outcome.logged, fn {level, text} -> "[#{level}] #{text}\n" end)
  end

  # Without what differs between machines and runs: uv's messages, log entries, which have their time, the notebook's folder,
  # pids, the code of modules, and the marks that only some Pythons put below the lines of a traceback.
  defp comparable(text) do
    text
    |> String.replace(~r/^(\[python-\w+\]|Waiting for another process that is making) .*(\n|\z)/m, "")
    |> String.replace(~r/\A\n?\d\d:\d\d:\d\d\.\d{3} \[.*\z/s, "")
    |> String.replace(~r/"[^"]*\/(\w+\.livemd)#cell:[^"]*"/, "\"\\1\"")
    |> String.replace(~r/#PID<[\d.]+>/, "#PID<>")
    |> String.replace(~r/\A{:module,.*\z/s, &String.replace(&1, ~r/\s*<<.*?>>,\s*/s, ""))
    |> String.replace(~r/^[ ^~]+\n/m, "")
    |> String.trim_trailing("\n")
  end

  # What an expression is after the last cell.
  defp value!(vm, last, code) do
    assert %{value: value} = Livebook.evaluate(vm, %Cell{id: "asked", code: code, line: 1}, last)
    value
  end

  # The Pythons of all interpreters in the VM.
  defp os_pids(vm, last) do
    value!(vm, last, """
    for pid <- Process.list(),
        :proc_lib.translate_initial_call(pid) == {Snex.Interpreter, :init, 1},
        do: Snex.Interpreter.os_pid(pid)
    """)
  end

  # Neither Pythons nor their wardens outlive the evaluator, although the VM does.
  defp assert_leaves_nothing(vm, pythons, wardens \\ nil) do
    {:os_pid, vm_os_pid} = Port.info(vm, :os_pid)
    eventually(fn -> wardens(vm_os_pid) == (wardens || length(pythons)) end)
    assert %{down: :shutdown} = Livebook.shutdown(vm)
    await_gone(pythons)
    eventually(fn -> wardens(vm_os_pid) == 0 end)
    assert Port.info(vm)
  end

  defp wardens(vm_os_pid) do
    {processes, 0} = System.cmd("ps", ["-A", "-o", "ppid=", "-o", "comm="])
    processes |> String.split("\n") |> Enum.count(&(&1 =~ ~r/^ *#{vm_os_pid} .*snex_warden/))
  end
end
