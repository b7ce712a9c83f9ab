defmodule Snex.Unconsolidated do
  @moduledoc """
  The protocol `Snex.Serde.Encoder` as it is before Mix consolidates it: implementations that a test defines count. In a
  project, they would be among what is consolidated.
  """

  @doc """
  Exchanges the protocol until the end of the test, which must not be async.
  """
  def exchange do
    consolidated = :code.which(Snex.Serde.Encoder)
    load(Application.app_dir(:snex, "ebin/Elixir.Snex.Serde.Encoder.beam"))
    ExUnit.Callbacks.on_exit(fn -> load(consolidated) end)
  end

  defp load(path) do
    :code.purge(Snex.Serde.Encoder)

    {:module, Snex.Serde.Encoder} =
      path |> to_string() |> Path.rootname() |> to_charlist() |> :code.load_abs()
  end
end
