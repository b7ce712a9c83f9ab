defmodule Snex.ReliabilityTest do
  use ExUnit.Case, async: true

  # The page promises, and names what proves it.
  @page "docs/reliability.md"
  @root Path.expand("..", __DIR__)

  setup_all do
    {:ok, page: File.read!(Path.join(@root, @page))}
  end

  test "each promise has a row, and each row a test that is there", %{page: page} do
    rows = for "| " <> row <- String.split(page, "\n"), row =~ ~r/^\d+\. /, do: row
    assert for(row <- rows, do: row |> Integer.parse() |> elem(0)) == Enum.to_list(1..22)

    for row <- rows do
      files = files(row)
      assert files != [], "nothing proves #{inspect(row)}"
      for file <- files, do: assert(File.exists?(Path.join(@root, file)), "#{@page} names #{file}")
    end
  end

  test "the commands of the page are there", %{page: page} do
    commands = Regex.scan(~r{`(bin/[a-z]+)[^`]*`}, page, capture: :all_but_first)
    assert [_ | _] = commands
    for [command] <- commands, do: assert(File.exists?(Path.join(@root, command)))
  end

  defp files(row),
    do:
      for(
        [file] <- Regex.scan(~r{`((?:test|native|py_src|bin)/[^`\s]+)}, row, capture: :all_but_first),
        do: file
      )
end
