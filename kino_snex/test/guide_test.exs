defmodule KinoSnex.GuideTest do
  # Not async: the notebook's interpreter has a name.
  use ExUnit.Case

  import Kino.Test

  setup :configure_livebook_bridge

  @guide Path.expand("../../docs/livebook.md", __DIR__)

  test "each block of the guide works, after the ones before it, and shows what the guide says" do
    blocks = for [_, code] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(@guide)), do: code
    # The tests of Snex itself run these.
    {["Mix.install(" <> _, "Mix.install(" <> _], blocks} = Enum.split_with(blocks, &(&1 =~ "Mix.install("))
    assert length(blocks) == 8

    values =
      Enum.map_reduce(blocks, {[], Code.env_for_eval(file: "guide.livemd")}, fn code, {binding, env} ->
        {value, binding, env} = Code.eval_quoted_with_env(Code.string_to_quoted!(code), binding, env)
        {value, {binding, env}}
      end)
      |> elem(0)

    nothing = Kino.nothing()
    assert [_start, frame, _checks, ^nothing, ^nothing, money, _python, 6] = values
    assert %{type: :js} = Kino.Render.to_livebook(frame)
    assert %{type: :markdown, text: "**9.50 €**"} = Kino.Render.to_livebook(money)
    # The figure, and the two groups.
    assert_output(%{type: :image}, 60_000)
    assert_output(%{type: :js}, 60_000)
    assert_output(%{type: :js}, 60_000)
  end
end
