for file <- ~w(prebuilt checksums download), do: Code.require_file("mix/#{file}.ex", __DIR__)
Code.require_file("mix/compile_cargo.ex", __DIR__)

defmodule Snex.MixProject do
  use Mix.Project

  # Where the repository can be read in public. Whoever publishes a version names it; without it, pages have no links to their sources.
  @source_url System.get_env("SNEX_SOURCE_URL")

  def project do
    [
      app: :snex,
      version: "1.0.0-rc.1",
      name: "Snex",
      description: "Python in isolated processes, called from Elixir, through a Rust NIF",
      source_url: @source_url,
      elixir: "~> 1.18",
      elixirc_paths: elixirc_paths(Mix.env()),
      # The native code comes first: a module that loads the NIF is of no use before it is there.
      compilers: [:cargo | Mix.compilers()],
      start_permanent: Mix.env() == :prod,
      deps: deps(Mix.env()),
      lockfile: "_build/mix.lock",
      aliases: [docs: [&python_reference/1, "docs"]],
      package: package(),
      docs: &docs/0
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end

  # ExDoc is the only library, and only in this environment: Snex is built and tested without Hex.
  def cli, do: [preferred_envs: [docs: :docs]]

  defp elixirc_paths(:test), do: ["lib", "test/support", "test/soak"]
  defp elixirc_paths(_env), do: ["lib"]

  defp deps(:docs) do
    if System.get_env("SNEX_INTEGRATION_DEPS", "") != "" do
      Code.require_file("test/integration/checkouts.ex", __DIR__)
      Snex.Integration.Checkouts.use!()
    end

    # Some systems have ExDoc beside Elixir's own libraries.
    if Code.ensure_loaded?(ExDoc), do: [], else: [{:ex_doc, "~> 0.35", only: :docs, runtime: false}]
  end

  defp deps(_env), do: []

  # What is needed to build Snex, and to run it, on a machine that has nothing but the package. `checksum` is made for each version,
  # see `mix help snex.checksum`.
  defp package do
    [
      licenses: ["Apache-2.0"],
      links: if(@source_url, do: %{"Source" => @source_url}, else: %{}),
      files: ~w(
        lib mix mix.exs .formatter.exs checksum
        native .cargo Cargo.toml Cargo.lock clippy.toml rustfmt.toml
        py_src/snex py_src/pyproject.toml
        README.md CHANGELOG.md LICENSE SECURITY.md docs examples
      )
    ]
  end

  defp docs do
    {config, _bindings} = Code.eval_file("docs/ex_doc.exs", __DIR__)
    config ++ [source_ref: "v#{project()[:version]}"]
  end

  # A page of the documentation, made from Python's docstrings.
  defp python_reference(_args) do
    {page, 0} = System.cmd("uv", ~w(run --quiet --no-project docs/reference.py))
    File.mkdir_p!("_build")
    File.write!("_build/python-package.md", page)
  end
end
