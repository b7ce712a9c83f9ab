# Draws the pictures of docs/concepts.md:
#
#   elixir docs/draw.exs
#
# What it writes to docs/images is committed; a test compares the two.

for file <- ~w[shapes concepts], do: Code.require_file("drawings/#{file}.ex", __DIR__)

for {name, svg} <- Snex.Drawings.Concepts.all(),
    do: File.write!(Path.join(__DIR__, "images/#{name}.svg"), svg)
