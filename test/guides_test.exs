defmodule Snex.GuidesTest do
  # Not async: the pages define modules and register names.
  use Snex.Case

  alias Snex.Markdown

  @moduletag :slow
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Each page, and how many blocks it has at least. Those of `python.md` and `release.md` have tests of their own.
  for {page, least} <- [bindings: 9, copies: 8, data: 11, objects: 21, pools: 15, streams: 13] do
    test "each block of docs/#{page}.md works, after the ones before it" do
      Process.flag(:trap_exit, true)
      path = Path.expand("../docs/#{unquote(page)}.md", __DIR__)
      blocks = Markdown.elixir_blocks(path)
      assert length(blocks) >= unquote(least)
      Markdown.evaluate(blocks, path)
    end
  end
end
