defmodule Snex.MigrationTest do
  # Not async: the protocol of the encoders is exchanged meanwhile.
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Markdown

  @page Path.expand("../docs/migration.md", __DIR__)
  @moduletag timeout: 120_000

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

  test "the types that programs for Snex 0.4 may name exist" do
    for {module, names} <- [
          {Snex.Interpreter, ~w[environment init_script option port_opts server wrap_exec]a},
          {Snex.Serde, [:encoding_opts]},
          {Snex.Code, [:t]},
          {Snex.Env, [:t]},
          {Snex.Error, [:t]}
        ] do
      {:ok, types} = Code.Typespec.fetch_types(module)
      known = for {:type, {name, _type, []}} <- types, do: name
      assert names -- known == []
    end
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
