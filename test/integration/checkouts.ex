defmodule Snex.Integration.Checkouts do
  @moduledoc """
  Takes what would come from Hex out of a folder with checkouts.
  """

  @behaviour Mix.SCM

  @doc """
  Has Mix look there from now on.
  """
  def use!, do: Mix.SCM.append(__MODULE__)

  @doc """
  The applications that are there.
  """
  def all, do: for(name <- File.ls!(folder()), app = String.to_atom(name), path(app), do: app)

  defp folder, do: Path.expand(System.fetch_env!("SNEX_INTEGRATION_DEPS"))

  # Nx shares its repository with other applications.
  defp path(app) do
    folder = Path.join(folder(), to_string(app))
    Enum.find([Path.join(folder, to_string(app)), folder], &File.regular?(Path.join(&1, "mix.exs")))
  end

  # Also one that is not there: whether it is needed turns out later.
  @impl true
  def accepts_options(app, options),
    do: Keyword.put(options, :dest, path(app) || "#{app}, not among the checkouts")

  @impl true
  def fetchable?, do: false

  @impl true
  def format(options), do: options[:dest]

  @impl true
  def format_lock(_options), do: nil

  @impl true
  def checked_out?(options), do: File.dir?(options[:dest])

  @impl true
  def checkout(options), do: Mix.raise("there is no checkout: #{options[:dest]}")

  @impl true
  def update(options), do: options[:lock]

  @impl true
  def lock_status(_options), do: :ok

  @impl true
  def equal?(one, other), do: one[:dest] == other[:dest]

  @impl true
  def managers(_options), do: []
end
