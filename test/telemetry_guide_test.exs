defmodule Snex.TelemetryGuideTest do
  # Not async: while there is a module `:telemetry`, all calls in this VM emit events.
  use Snex.Case

  alias Snex.Markdown

  @page Path.expand("../docs/telemetry.md", __DIR__)
  @moduletag :capture_log

  # There are no packages from Hex here. This has the functions of the `:telemetry` application that the page uses.
  @telemetry (quote do
                @moduledoc false
                def attach(id, event, function, config) do
                  handlers = :persistent_term.get(__MODULE__, %{})
                  :persistent_term.put(__MODULE__, Map.put(handlers, id, {event, function, config}))
                end

                def execute(event, measurements, metadata) do
                  for {_id, {^event, function, config}} <- :persistent_term.get(__MODULE__, %{}),
                      do: function.(event, measurements, metadata, config)

                  :ok
                end
              end)

  setup do
    Module.create(:telemetry, @telemetry, Macro.Env.location(__ENV__))

    on_exit(fn ->
      :persistent_term.erase(:telemetry)
      :code.purge(:telemetry)
      :code.delete(:telemetry)
      :code.purge(:telemetry)
    end)
  end

  test "each block of the page works, after the ones before it" do
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) == 3
    log = ExUnit.CaptureLog.capture_log(fn -> Markdown.evaluate(blocks, @page) end)
    assert log =~ ~r/pyeval on #PID<.*> took \d+ ms/
  end

  test "the page names each event that Snex.Telemetry documents" do
    {:docs_v1, _line, _language, _format, %{"en" => text}, _metadata, _entries} =
      Code.fetch_docs(Snex.Telemetry)

    page = File.read!(@page)
    events = Regex.scan(~r/^### `\[(:snex, :\w+), (:\w+)\]`/m, text, capture: :all_but_first)
    assert length(events) > 10

    for [first, last] <- events do
      rows = for "| `[" <> row <- String.split(page, "\n"), row =~ first, do: row
      assert Enum.any?(rows, &(&1 =~ last)), "no row for [#{first}, #{last}]"
    end
  end
end
