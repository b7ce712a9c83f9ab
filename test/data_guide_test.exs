defmodule Snex.DataGuideTest do
  # Not async: the page defines a module.
  use Snex.Case

  alias Snex.Markdown

  @page Path.expand("../docs/data.md", __DIR__)
  @moduletag :slow
  @moduletag :capture_log
  @moduletag timeout: 600_000

  test "each block of the page about data works, after the ones before it" do
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) > 10
    Markdown.evaluate(blocks, @page)
  end
end
