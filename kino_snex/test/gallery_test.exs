Code.require_file("../../test/support/livebook/notebook.ex", __DIR__)

defmodule KinoSnex.GalleryTest do
  # Not async: the notebooks register names.
  use ExUnit.Case

  import Kino.Test

  alias Snex.Livebook.Notebook

  setup :configure_livebook_bridge

  @notebooks Path.expand("../../examples/livebook", __DIR__)

  # Evaluates all cells but the setup cell. Returns the value and the kept outputs of each.
  defp run(name) do
    [_setup | cells] = Notebook.cells!(Path.join(@notebooks, name))

    {results, _context} =
      Enum.map_reduce(cells, {[], Code.env_for_eval([])}, fn cell, {binding, env} ->
        env = %{env | file: "#{cell.path}#cell:#{cell.id}", line: 1}
        quoted = Code.string_to_quoted!(cell.code, file: env.file)
        {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
        {{value, cell.outputs}, {binding, env}}
      end)

    results
  end

  test "data_frame_and_plot.livemd shows a table, a figure, HTML and pictures" do
    nothing = {Kino.nothing(), []}

    assert [_python, cities, {frame, [table]}, ^nothing, {styler, []}, ^nothing, ^nothing, values, rows] =
             run("data_frame_and_plot.livemd")

    # The outputs that come before the value, in their order.
    for [format, start] <- [["png", <<0x89, "PNG">>] | List.duplicate(["svg+xml", "<svg "], 3)] do
      mime = "image/" <> format
      assert_output(%{type: :image, mime_type: ^mime, content: content}, 60_000)
      assert String.starts_with?(content, start)
    end

    assert %{type: :js} = Kino.Render.to_livebook(frame)
    kino = KinoSnex.Output.of(frame)
    assert %{content: %{total_rows: 1095, columns: columns}} = connect(kino, nil, 60_000)
    assert ["city", "day", "degrees"] = for(column <- columns, do: column.label)

    # As Livebook does when it saves the notebook with its outputs.
    send(kino.pid, {:export, self(), %{ref: kino.ref}})
    assert_receive {:export_reply, {"text", ^table}, _info}, 60_000

    assert {:ok, %{type: "text/html", data: html}} = Snex.Display.of(styler, timeout: 60_000)
    assert html =~ ~r/background-color: #[0-9a-f]{6}/

    for {value, [kept]} <- [cities, values, rows],
        do: assert(inspect(value, pretty: true, width: 100) == kept)
  end

  test "streaming_tokens.livemd shows an answer token by token, and has a chat" do
    assert {%Kino.Layout{type: :grid, items: [chat, form]}, _kept} = List.last(run("streaming_tokens.livemd"))

    assert_output(%{type: :frame, ref: frame}, 60_000)
    assert_appended(frame, "Tell ")
    assert_appended(frame, "me ")

    send_until_heard(form, %{data: %{text: "Hello"}, origin: "a client", type: :submit}, chat)
    assert_appended(chat.ref, "Hello! ")
    assert_appended(chat.ref, "about?")
  end

  # As Livebook sends it when somebody submits the form. Nothing says when the process that listens has subscribed.
  defp send_until_heard(form, event, %{ref: frame} = chat, attempts \\ 600) do
    send(form.destination, {:event, form.ref, event})

    receive do
      {:livebook_put_output, %{type: :frame_update, ref: ^frame, update: {:append, [%{text: shown}]}}} ->
        assert shown =~ event.data.text
    after
      100 ->
        assert attempts > 0, "nobody listens to the form"
        send_until_heard(form, event, chat, attempts - 1)
    end
  end

  defp assert_appended(frame, text) do
    assert_output(
      %{type: :frame_update, ref: ^frame, update: {:append, [%{type: :markdown, text: ^text, chunk: true}]}},
      60_000
    )
  end
end
