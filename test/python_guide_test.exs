defmodule Snex.PythonGuideTest do
  # Not async: the page registers a name, and has encoders of its own.
  use Snex.Case

  alias Snex.Markdown

  @page Path.expand("../docs/python.md", __DIR__)
  @moduletag :capture_log
  @moduletag timeout: 300_000

  setup do
    Snex.Unconsolidated.exchange()
  end

  test "each block of the page about Python works, after the ones before it" do
    Process.flag(:trap_exit, true)
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) > 10
    Markdown.evaluate(blocks, @page)
  end
end
