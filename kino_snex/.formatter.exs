[line_length: 110, inputs: ["*.exs", "{lib,test}/**/*.{ex,exs}"]]
