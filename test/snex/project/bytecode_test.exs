defmodule Snex.Project.BytecodeTest do
  use Snex.Case, async: true

  alias Snex.Project.{Bytecode, Files}

  @moduletag :tmp_dir

  defp python, do: elem(hd(pythons()), 1)

  defp tag do
    {tag, 0} = System.cmd(python(), ["-c", "import sys; print(sys.implementation.cache_tag, end='')"])
    tag
  end

  defp cached(folder, name), do: Path.join([folder, "__pycache__", "#{name}.#{tag()}.pyc"])

  defp version, do: to_string(Application.spec(:snex, :vsn))

  # The second word: 0 for bytecode that is compared with its source's time, 1 for what is taken as it is.
  defp flags(path) do
    <<_magic::32, flags::little-32, _rest::binary>> = File.read!(path)
    flags
  end

  defp run(folder, code),
    do: System.cmd(python(), ["-B", "-c", code], env: [{"PYTHONPATH", folder}], stderr_to_stdout: true)

  test "what is compiled is used whatever the time of its source, and names no folder of the build", %{
    tmp_dir: folder
  } do
    File.mkdir_p!(Path.join(folder, "build/package"))
    module = Path.join(folder, "build/package/module.py")
    File.write!(module, "def f(): return 'before'\n")
    assert Bytecode.compile!(Path.join(folder, "build"), python()) == :ok
    compiled = cached(Path.join(folder, "build/package"), "module")
    assert flags(compiled) == 1
    refute File.read!(compiled) =~ folder

    # Elsewhere, and with another source: nobody looks at it.
    elsewhere = Path.join(folder, "elsewhere")
    File.rename!(Path.join(folder, "build"), elsewhere)
    File.write!(Path.join(elsewhere, "package/module.py"), "def f(): return 'after, and longer'\n")
    code = "from package.module import f; print(f(), f.__code__.co_filename, end='')"
    assert run(elsewhere, code) == {"before #{Path.join(elsewhere, "package/module.py")}", 0}
  end

  test "our package is loaded as a release has it, without compiling anything", %{
    tmp_dir: folder
  } do
    package = Path.join(folder, "snex")
    Files.copy!(Path.join(Snex.Os.app_dir(:snex, "priv/python"), "snex"), package)
    Bytecode.prune(package, "no such tag")
    Bytecode.compile!(folder, python())
    sources = for path <- Files.walk(package), String.ends_with?(path, ".py"), do: path
    assert length(sources) > 30

    for path <- sources,
        do: assert(flags(cached(Path.dirname(path), Path.basename(path, ".py"))) == 1, path)

    # So the sources are not even read.
    for path <- sources, do: File.write!(path, "raise RuntimeError('compiled anew')")

    assert run(folder, "import snex._main; print(snex._main.VERSION, end='')") == {version(), 0}
  end

  test "code that is none is an error that shows it", %{tmp_dir: folder} do
    File.write!(Path.join(folder, "wrong.py"), "x = = 1\n")
    assert_raise RuntimeError, ~r/does not compile .*wrong.py/s, fn -> Bytecode.compile!(folder, python()) end
  end

  test "prune leaves what belongs to the Python that is named", %{tmp_dir: folder} do
    cache = Path.join(folder, "a/__pycache__")
    File.mkdir_p!(cache)
    other = Path.join(folder, "b/__pycache__")
    File.mkdir_p!(other)
    for name <- ["m.cpython-39.pyc", "m.cpython-311.pyc"], do: File.write!(Path.join(cache, name), "")
    File.write!(Path.join(other, "m.cpython-39.pyc"), "")
    assert Bytecode.prune(folder, "cpython-311") == :ok
    assert File.ls!(cache) == ["m.cpython-311.pyc"]
    refute File.exists?(other)
  end
end
