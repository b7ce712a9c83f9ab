defmodule Snex.CallOptions.Defaults do
  @moduledoc false
  # The options of a call that gives none, checked when this is compiled: they cost such a call nothing.

  alias Snex.CallOptions
  alias Snex.Options

  for name <- [:pyeval, :make_env, :call, :get, :stream, :map] do
    defaults = [] |> Options.check!(apply(CallOptions, name, [])) |> Macro.escape()

    @doc "Those of `Snex.#{name}`."
    @spec unquote(name)() :: %{atom() => term()}
    def unquote(name)(), do: unquote(defaults)
  end
end
