[
  inputs: ["*.exs", "{lib,mix,test,bench,examples}/**/*.{ex,exs}"]
]
