[
  # As wide as rustfmt.toml has it.
  line_length: 110,
  inputs: ["*.exs", "{lib,mix,test,bench,docs,examples}/**/*.{ex,exs}"]
]
