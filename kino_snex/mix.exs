checkouts? = System.get_env("SNEX_INTEGRATION_DEPS", "") != ""

if checkouts? do
  Code.require_file("../test/integration/checkouts.ex", __DIR__)
  Snex.Integration.Checkouts.use!()
end

defmodule KinoSnex.MixProject do
  use Mix.Project

  # Kino comes from Hex. Where that cannot be reached, the environment variable SNEX_INTEGRATION_DEPS may name a folder with checkouts, of
  # which this project takes kino and table.

  def project do
    [
      app: :kino_snex,
      version: "1.0.0-rc.1",
      description: "Python in Livebook, through Snex",
      elixir: "~> 1.18",
      deps: [{:snex, path: ".."} | libraries()],
      # All that is made is below the build folder of Snex.
      build_path: "../_build/kino_snex",
      deps_path: "../_build/kino_snex/deps",
      lockfile: "../_build/kino_snex/mix.lock"
    ]
  end

  def application, do: [mod: {KinoSnex.Application, []}, extra_applications: [:logger]]

  if checkouts? do
    defp libraries, do: for(app <- [:kino, :table], do: {app, ">= 0.0.0", override: true})
  else
    defp libraries, do: [kino: "~> 0.14", table: "~> 0.1.2"]
  end
end
