defmodule Snex.NativeStart do
  @moduledoc """
  What `Snex.Native.interpreter_start/1` is given, for tests that call it themselves.
  """

  @doc """
  A program that is not there, so that nothing stays behind. `owner` plays all the processes of an interpreter.
  """
  def options(owner) do
    %{
      warden: Application.app_dir(:snex, "priv/native/snex_warden"),
      program: "/nowhere/at/all",
      args: ["-m"],
      env: [{"NAME", "value"}],
      cwd: nil,
      use_stdio: false,
      template: nil,
      ignore_threads: false,
      version: "0",
      eager: true,
      low: 1,
      high: 2,
      max_in_flight: nil,
      cleanup_timeout: 5_000,
      end_on_memory_error: true,
      map_set: {"", ""},
      object: {"", "", ""},
      structs: [{"date", ["", ""]}],
      owner: owner,
      calls: owner,
      output: owner,
      output_to: "",
      encoding: {nil, nil, nil, [], nil, nil},
      create_atoms: true,
      allow: [{"m", nil, nil}, {"m", "f", 1}],
      limits: {nil, nil, nil, nil, 1_000_000},
      shared_memory: nil
    }
  end
end
