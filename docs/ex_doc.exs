# What ExDoc makes of the documentation. `mix docs` reads it through mix.exs, and bin/test passes it to the program `ex_doc`.

guides = [
  Start: ~w[README.md docs/getting_started.md docs/concepts.md docs/cookbook.md],
  Guides: ~w[
    docs/objects.md docs/streams.md docs/data.md docs/pools.md docs/copies.md docs/bindings.md docs/python.md
    docs/livebook.md docs/release.md
  ],
  "In production":
    ~w[docs/telemetry.md docs/reliability.md docs/security.md docs/performance.md docs/troubleshooting.md],
  Notebooks: ~w[
    examples/livebook/first_steps.livemd examples/livebook/data_frame_and_plot.livemd
    examples/livebook/calling_elixir.livemd examples/livebook/streaming_tokens.livemd
    examples/livebook/pool.livemd examples/livebook/text_in_an_image.livemd
  ],
  "Coming from elsewhere": ~w[docs/comparison.md docs/migration.md],
  Reference: ~w[_build/python-package.md docs/protocol.md CHANGELOG.md LICENSE]
]

# Tables have the width of the text. On a phone, one that is wider than the window scrolls by itself, and the text stays where it is.
style = """
<style>
  .content-inner table { width: 100% }
  @media (max-width: 640px) { .content-inner table { display: block; overflow-x: auto } }
</style>
"""

[
  main: "readme",
  logo: "docs/images/logo.svg",
  assets: %{"docs/images" => "images"},
  extras: guides |> Keyword.values() |> List.flatten(),
  groups_for_extras: guides,
  before_closing_head_tag: %{html: style, epub: ""},
  groups_for_modules: [
    Values: [Snex.Array, Snex.Arrow, Snex.Serde, Snex.Serde.Encoder],
    "Code and notebooks": [Snex.Cell, Snex.Code, Snex.Display, Snex.Sigils],
    Tools: [Snex.Bindings, Snex.Release, Snex.Telemetry, Snex.Test]
  ]
]
