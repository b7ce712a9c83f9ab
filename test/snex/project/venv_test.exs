defmodule Snex.Project.VenvTest do
  use ExUnit.Case, async: true

  alias Snex.Project.Venv

  @moduletag :tmp_dir

  # The layout that uv makes with a Python of its own, with its absolute links.
  setup %{tmp_dir: tmp_dir} do
    root = Path.join(tmp_dir, "snex")
    venv = Path.join(root, "projects/M/.venv")
    base = Path.join(root, "python/cpython-3.12.1-linux")
    minor = Path.join(root, "python/cpython-3.12-linux")
    File.mkdir_p!(Path.join(base, "bin"))
    File.write!(Path.join(base, "bin/python3.12"), "")
    File.ln_s!(base, minor)
    File.mkdir_p!(Path.join(venv, "bin"))
    File.ln_s!(Path.join(minor, "bin/python3.12"), Path.join(venv, "bin/python"))
    File.ln_s!("python", Path.join(venv, "bin/python3"))
    File.write!(Path.join(venv, "pyvenv.cfg"), "home = #{minor}/bin\nversion_info = 3.12\n")
    %{root: root, venv: venv}
  end

  test "links below the root become relative, and survive a move", %{root: root, venv: venv} do
    assert Venv.usable?(venv)
    Venv.make_movable(venv, root)

    assert File.read_link!(Path.join(venv, "bin/python")) ==
             "../../../../python/cpython-3.12-linux/bin/python3.12"

    File.rename!(root, root <> "-moved")
    assert Venv.usable?(root <> "-moved/projects/M/.venv")
  end

  test "links to other places stay as they are", %{root: root, venv: venv} do
    link = Path.join(venv, "bin/python")
    File.rm!(link)
    File.ln_s!("/usr/bin/env", link)
    Venv.make_movable(venv, root)
    assert File.read_link!(link) == "/usr/bin/env"
  end

  test "the home of a moved environment follows", %{root: root, venv: venv} do
    Venv.make_movable(venv, root)
    moved = root <> " moved \\1"
    File.rename!(root, moved)
    venv = Path.join(moved, "projects/M/.venv")

    Venv.settle(venv)

    assert File.read!(Path.join(venv, "pyvenv.cfg")) ==
             "home = #{moved}/python/cpython-3.12-linux/bin\nversion_info = 3.12\n"
  end

  test "the home of one that was not moved is not touched", %{root: root, venv: venv} do
    Venv.make_movable(venv, root)
    config = Path.join(venv, "pyvenv.cfg")
    before = {File.read!(config), File.stat!(config)}
    Venv.settle(venv)
    assert {File.read!(config), File.stat!(config)} == before
  end
end
