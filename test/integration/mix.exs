checkouts? = System.get_env("SNEX_INTEGRATION_DEPS", "") != ""

if checkouts? do
  Code.require_file("checkouts.ex", __DIR__)
  Snex.Integration.Checkouts.use!()
end

defmodule Snex.Integration.MixProject do
  use Mix.Project

  # Snex depends on no library, and knows the values of some. This project has these libraries, and tries Snex with them: bin/test integration.
  #
  # They come from Hex. Where that cannot be reached, the environment variable SNEX_INTEGRATION_DEPS may name a folder with checkouts, each
  # under the name of its application: nx, complex and telemetry, decimal, flame, explorer and what that needs. What is not there is not tested.

  def project do
    [
      app: :snex_integration,
      version: "0.0.0",
      elixir: "~> 1.18",
      deps: [{:snex, path: "../.."} | libraries()],
      test_paths: ["tests"],
      test_pattern: "*_round_trip.exs",
      # All that is made is below the build folder of Snex.
      build_path: "../../_build/integration",
      deps_path: "../../_build/integration/deps",
      lockfile: "../../_build/integration/mix.lock"
    ]
  end

  def application, do: [extra_applications: [:logger]]

  if checkouts? do
    # In whatever version they are there.
    defp libraries, do: for(app <- Snex.Integration.Checkouts.all(), do: {app, ">= 0.0.0", override: true})
  else
    defp libraries, do: [nx: "~> 0.9", explorer: "~> 0.11", decimal: "~> 2.0 or ~> 3.0", flame: "~> 0.5"]
  end
end
