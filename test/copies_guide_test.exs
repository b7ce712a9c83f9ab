defmodule Snex.CopiesGuideTest do
  # Not async: the page registers names.
  use Snex.Case

  alias Snex.Markdown

  @page Path.expand("../docs/copies.md", __DIR__)
  @moduletag :slow
  @moduletag :capture_log
  @moduletag timeout: 600_000

  test "each block of the page about copies works, after the ones before it" do
    Process.flag(:trap_exit, true)
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) >= 8
    Markdown.evaluate(blocks, @page)
  end
end
