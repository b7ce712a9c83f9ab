defmodule Snex.GuidesTest do
  # Not async: the pages define modules and register names.
  use Snex.Case

  alias Snex.Markdown

  @moduletag :slow
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Each page, and how many blocks it has at least. Those of `python.md` and `release.md` have tests of their own.
  for {page, least} <- [
        bindings: 9,
        comparison: 3,
        concepts: 6,
        cookbook: 14,
        copies: 8,
        data: 16,
        getting_started: 14,
        objects: 21,
        performance: 4,
        pools: 15,
        streams: 13,
        troubleshooting: 13
      ] do
    test "each block of docs/#{page}.md works, after the ones before it" do
      Process.flag(:trap_exit, true)
      path = Path.expand("../docs/#{unquote(page)}.md", __DIR__)
      blocks = Markdown.elixir_blocks(path)
      assert length(blocks) >= unquote(least)
      Markdown.evaluate(blocks, path)
      end_all()
    end
  end

  test "docs/troubleshooting.md has a section for each code of an error" do
    page = File.read!(Path.expand("../docs/troubleshooting.md", __DIR__))
    {:ok, types} = Code.Typespec.fetch_types(Snex.Error)

    {:type, _, :union, codes} =
      Enum.find_value(types, fn {:type, {name, type, _}} -> name == :code && type end)

    for {:atom, _, code} <- codes,
        do: assert(page =~ "\n## `#{inspect(code)}`\n", "no section for #{inspect(code)}")
  end

  # What a page has started keeps its name until it has ended, and the next page may use the same one.
  defp end_all do
    {:links, links} = Process.info(self(), :links)

    for pid <- links, is_pid(pid) do
      monitor = Process.monitor(pid)
      Process.exit(pid, :shutdown)
      assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 60_000
    end
  end
end
