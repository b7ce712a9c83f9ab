defmodule Snex.Project.FilesTest do
  use ExUnit.Case, async: true

  alias Snex.OtherVM
  alias Snex.Project.Files

  @moduletag :tmp_dir

  # A folder with a file, and links to the file and to a folder outside; no name in it is ASCII.
  defp tree!(tmp_dir) do
    outside = Path.join(tmp_dir, "outside")
    tree = Path.join(tmp_dir, "tree")
    File.mkdir_p!(outside)
    File.write!(Path.join(outside, "kept"), "")
    File.mkdir_p!(Path.join(tree, "für"))
    File.write!(Path.join(tree, "für/größe"), "42")
    File.chmod!(Path.join(tree, "für/größe"), 0o755)
    File.touch!(Path.join(tree, "für/größe"), 1_000_000_000)
    File.ln_s!("für/größe", Path.join(tree, "link ä"))
    File.ln_s!(outside, Path.join(tree, "out ä"))
    {tree, outside}
  end

  for locale <- ["C", "C.UTF-8"] do
    test "folders are copied as they are and removed, with LC_ALL=#{locale}", %{tmp_dir: tmp_dir} do
      {tree, outside} = tree!(tmp_dir)
      copy = Path.join(tmp_dir, "copy")

      code = """
      alias Snex.Project.Files
      Files.copy!(#{inspect(tree)}, #{inspect(copy)})
      Files.remove!(#{inspect(tree)})
      names = Files.names(#{inspect(copy)})
      tell.(for name <- names, do: {name, Files.link(Path.join(#{inspect(copy)}, name))})
      """

      vm = OtherVM.start(code, through: ["env", "LC_ALL=#{unquote(locale)}"])
      assert OtherVM.await(vm) == [{"für", nil}, {"link ä", "für/größe"}, {"out ä", outside}]
      refute File.exists?(tree)
      assert File.ls!(outside) == ["kept"]
      assert File.read!(Path.join(copy, "link ä")) == "42"
      assert File.read_link!(Path.join(copy, "link ä")) == "für/größe"
      assert File.read_link!(Path.join(copy, "out ä")) == outside
      assert %{mode: 0o100755, mtime: 1_000_000_000} = File.stat!(Path.join(copy, "für/größe"), time: :posix)
    end
  end

  test "a link is removed, and not what it leads to", %{tmp_dir: tmp_dir} do
    {tree, outside} = tree!(tmp_dir)
    assert Files.remove!(Path.join(tree, "out ä")) == :ok
    assert File.ls!(outside) == ["kept"]
    assert Files.remove!(Path.join(tree, "nothing")) == :ok
    assert Files.link(tree) == nil
  end
end
