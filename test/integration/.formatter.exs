[
  line_length: 110,
  inputs: ["*.exs", "tests/**/*.exs"]
]
