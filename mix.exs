for file <- ~w(prebuilt checksums download), do: Code.require_file("mix/#{file}.ex", __DIR__)
Code.require_file("mix/compile_cargo.ex", __DIR__)

defmodule Snex.MixProject do
  use Mix.Project

  def project do
    [
      app: :snex,
      version: "1.0.0-rc.1",
      description: "Python in isolated processes, called from Elixir, through a Rust NIF",
      elixir: "~> 1.18",
      elixirc_paths: elixirc_paths(Mix.env()),
      # The native code comes first: a module that loads the NIF is of no use before it is there.
      compilers: [:cargo | Mix.compilers()],
      start_permanent: Mix.env() == :prod,
      deps: []
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support", "test/soak"]
  defp elixirc_paths(_env), do: ["lib"]
end
