defmodule Snex.ReliabilityTest do
  use ExUnit.Case, async: true

  # The page promises, and names what proves it.
  @page "docs/reliability.md"
  @root Path.expand("..", __DIR__)

  setup_all do
    {:ok, page: File.read!(Path.join(@root, @page))}
  end

  test "each promise has a section, and each section a test that is there", %{page: page} do
    [promises] = Regex.run(~r/^## The promises\n(.*?)^## /ms, page, capture: :all_but_first)
    [_before | sections] = String.split(promises, ~r/^### /m)
    assert for(section <- sections, do: section |> Integer.parse() |> elem(0)) == Enum.to_list(1..22)

    for section <- sections do
      files = files(section)
      assert files != [], "nothing proves #{inspect(section)}"
      for file <- files, do: assert(File.exists?(Path.join(@root, file)), "#{@page} names #{file}")
    end
  end

  test "the commands of the page are there", %{page: page} do
    commands = Regex.scan(~r{`(bin/[a-z]+)[^`]*`}, page, capture: :all_but_first)
    assert [_ | _] = commands
    for [command] <- commands, do: assert(File.exists?(Path.join(@root, command)))
  end

  defp files(section),
    do:
      for(
        [file] <- Regex.scan(~r{`((?:test|native|py_src|bin)/[^`\s]+)}, section, capture: :all_but_first),
        do: file
      )
end
