defmodule KinoSnex.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    Kino.SmartCell.register(KinoSnex.PythonCell)
    Supervisor.start_link([], strategy: :one_for_one, name: KinoSnex.Supervisor)
  end
end
