defmodule Snex.DocumentationTest do
  use ExUnit.Case, async: true

  alias Snex.Markdown

  @root Path.expand("..", __DIR__)
  {config, _bindings} = Code.eval_file("docs/ex_doc.exs", @root)
  @config config

  for file <- ~w[shapes concepts], do: Code.require_file("docs/drawings/#{file}.ex", @root)

  # Made with the documentation, so it need not be there yet.
  @made "_build/python-package.md"
  # Pages that are no prose of ours.
  @others [@made, "LICENSE"]
  @pages @config[:extras] -- @others
  # Whoever reads one of these goes on to the next.
  @guides for "docs/" <> _ = page <- @pages, do: page

  defp read(page), do: File.read!(Path.join(@root, page))

  defp documented_modules do
    {:ok, modules} = :application.get_key(:snex, :modules)

    for module <- modules,
        # Others are the tests' own.
        module.module_info(:compile)[:source] |> Path.relative_to(@root) |> String.starts_with?("lib/"),
        {:docs_v1, _line, _language, _format, %{"en" => text}, _metadata, entries} <- [
          Code.fetch_docs(module)
        ],
        do: {module, text, entries}
  end

  # What lists of modules and functions show of a text.
  defp summary(text), do: text |> String.trim() |> String.split(~r/\n\s*\n/, parts: 2) |> hd()

  # One sentence, and neither a heading nor the beginning of a list or a table. Only the page of the whole library may have two.
  defp sentence?(text) do
    first = summary(text)
    String.ends_with?(first, ".") and not (first =~ ~r/\A\s*[#|*>-]/) and not (first =~ ~r/\.\s+\S/)
  end

  test "the summary of each public module, function, macro and callback is one sentence" do
    modules = documented_modules()
    assert length(modules) > 20

    wrong =
      for {module, text, entries} <- modules,
          {name, text} <- [
            {inspect(module), text}
            | for(
                {{kind, name, arity}, _, _, %{"en" => text}, _} <- entries,
                kind in [:function, :macro, :callback],
                do: {"#{inspect(module)}.#{name}/#{arity}", text}
              )
          ],
          name != "Snex",
          not sentence?(text),
          do: {name, summary(text)}

    assert wrong == []
  end

  test "the first page says what Snex is before it shows anything" do
    {Snex, text, _entries} = List.keyfind(documented_modules(), Snex, 0)
    assert [_first, _second] = text |> summary() |> String.replace("\n", " ") |> String.split(~r/(?<=\.) /)
    assert String.starts_with?(summary(text), "Snex runs Python from Elixir")
  end

  test "no public function is without documentation" do
    for {module, _text, entries} <- documented_modules(),
        {{kind, name, arity}, _, _, :none, metadata} <- entries,
        kind in [:function, :macro, :callback],
        is_nil(metadata[:impl]) or kind == :callback,
        do: flunk("#{inspect(module)}.#{name}/#{arity} has no documentation")
  end

  test "every page is in the documentation, and in the README's list of guides" do
    for pattern <- ~w[docs/*.md examples/livebook/*.livemd],
        path <- Path.wildcard(Path.join(@root, pattern)),
        page = Path.relative_to(path, @root),
        do: assert(page in @pages, "docs/ex_doc.exs does not have #{page}")

    readme = read("README.md")
    for page <- @guides, do: assert(readme =~ "](#{page})", "the README does not list #{page}")
  end

  test "each question of the cookbook is one click from the README, and from the top of the cookbook" do
    cookbook = read("docs/cookbook.md")
    questions = for [heading] <- Regex.scan(~r/^## .+$/m, Markdown.prose(cookbook)), do: heading
    assert length(questions) >= 15

    for anchor <- Enum.flat_map(questions, &anchors/1) do
      assert read("README.md") =~ "](docs/cookbook.md##{anchor})", "the README does not link to ##{anchor}"
      assert cookbook =~ "](##{anchor})", "the cookbook does not begin with a link to ##{anchor}"
    end
  end

  test "every page and image that docs/ex_doc.exs names is there, and every image is on a page" do
    named = [@config[:logo] | @config[:extras] ++ Map.keys(@config[:assets])] -- [@made]
    for path <- named, do: assert(File.exists?(Path.join(@root, path)), "there is no #{path}")

    shown = for page <- @pages, link <- links(read(page)), do: page |> resolve(link) |> elem(0)

    for path <- Path.wildcard(Path.join(@root, "docs/images/*")),
        image = Path.relative_to(path, @root),
        do: assert(image in [@config[:logo] | shown], "no page shows #{image}")
  end

  test "the drawings of docs/concepts.md are those that docs/draw.exs writes" do
    for {name, svg} <- Snex.Drawings.Concepts.all() do
      image = "docs/images/#{name}.svg"
      assert read(image) == svg, "#{image} is out of date: elixir docs/draw.exs"
      assert read("docs/concepts.md") =~ "](images/#{name}.svg)"
    end
  end

  test "every link between pages leads to a page, and every anchor to a heading" do
    anchors = Map.new(@pages ++ ["SECURITY.md"], &{&1, anchors(read(&1))})
    links = for page <- Map.keys(anchors), link <- links(read(page)), do: {page, link}
    assert length(links) > 50

    for {page, link} <- links do
      {target, anchor} = resolve(page, link)
      assert target == @made or File.exists?(Path.join(@root, target)), "#{page}: there is no #{target}"

      if anchor != "" and target not in @others,
        do: assert(anchor in (anchors[target] || []), "#{page}: #{target} has no heading ##{anchor}")
    end
  end

  test "every link of a module's documentation leads to a page, and every anchor to a heading" do
    by_name = Map.new(@pages ++ @others, &{Path.basename(&1), &1})

    for {module, text, entries} <- documented_modules(),
        text <- [text | for({_, _, _, %{"en" => text}, _} <- entries, do: text)],
        link <- links(text) do
      [target, anchor] = String.split(link <> "#", "#", parts: 3) |> Enum.take(2)

      assert page = (target == "" && "") || by_name[Path.basename(target)],
             "#{inspect(module)}: no page is called #{target}"

      if anchor != "" and page not in ["" | @others],
        do: assert(anchor in anchors(read(page)), "#{inspect(module)}: #{page} has no heading ##{anchor}")
    end
  end

  test "every guide ends with where to go next" do
    for page <- @guides do
      last = read(page) |> String.trim() |> String.split("\n\n") |> List.last()
      assert "Next: " <> rest = last, "#{page} does not end with Next:"
      assert links(rest) != [], "#{page} links to nothing next"
      assert rest =~ ~r/`(Snex|mix snex|Kino)/ or page == "docs/protocol.md", "#{page} names no module next"
    end
  end

  # Links in the text outside of blocks of code, but those to other sites.
  defp links(text) do
    for [target] <- Regex.scan(~r/\]\(([^)\s]+)\)/, Markdown.prose(text), capture: :all_but_first),
        not (target =~ ~r/\A(https?:|mailto:)/),
        do: target
  end

  defp resolve(page, link) do
    [target, anchor] = String.split(link <> "#", "#", parts: 3) |> Enum.take(2)
    path = if target == "", do: page, else: Path.join(Path.dirname(page), target)
    {path |> Path.expand(@root) |> Path.relative_to(@root), anchor}
  end

  # As GitHub and ExDoc make them of headings.
  defp anchors(text) do
    for [heading] <- Regex.scan(~r/^#+ (.+)$/m, Markdown.prose(text), capture: :all_but_first) do
      heading
      |> String.downcase()
      |> String.replace(~r/[^\w\s-]/u, "")
      |> String.trim()
      |> String.replace(~r/\s/, "-")
    end
  end
end
