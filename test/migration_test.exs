defmodule Snex.MigrationTest do
  # Not async: the protocol of the encoders is exchanged meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Markdown

  @page Path.expand("../docs/migration.md", __DIR__)
  @moduletag timeout: 20_000

  setup do
    Snex.Unconsolidated.exchange()
  end

  test "each block of the migration page works, after the ones before it" do
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) > 30
    # :returning warns.
    warnings = capture_io(:stderr, fn -> Markdown.evaluate(blocks, @page) end)
    assert warnings =~ "the option :returning is deprecated"
  end

  test "each paragraph of the migration page that ends in a colon has a block" do
    orphans =
      @page
      |> File.read!()
      |> String.split("\n\n")
      |> Enum.chunk_every(2, 1)
      |> Enum.filter(fn pair ->
        String.ends_with?(hd(pair), ":") and not (Enum.at(pair, 1, "") =~ ~r/\A```elixir/)
      end)

    assert orphans == []
  end
end
