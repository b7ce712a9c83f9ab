Code.require_file("../../test/support/livebook/notebook.ex", __DIR__)

defmodule KinoSnex.GalleryTest do
  # Not async: the notebooks register names.
  use ExUnit.Case

  import Kino.Test

  alias Snex.Livebook.Notebook

  setup :configure_livebook_bridge

  @notebooks Path.expand("../../examples/livebook", __DIR__)

  # Evaluates all cells but the setup cell, and returns their values. Elsewhere the notebooks are tested without Kino.
  defp values(name) do
    [_setup | cells] = Notebook.cells!(Path.join(@notebooks, name))

    {values, _context} =
      Enum.map_reduce(cells, {[], Code.env_for_eval([])}, fn cell, {binding, env} ->
        env = %{env | file: "#{cell.path}#cell:#{cell.id}", line: 1}
        quoted = Code.string_to_quoted!(cell.code, file: env.file)
        {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
        {value, {binding, env}}
      end)

    values
  end

  test "streaming_tokens.livemd shows an answer token by token, and has a chat" do
    assert %Kino.Layout{type: :grid, items: [chat, form]} = List.last(values("streaming_tokens.livemd"))

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
