# A script with a Python package of its own, installed when it runs for the first time. Run it from anywhere with
# `elixir examples/packages.exs`, or with `mix run examples/packages.exs` in this repository.

unless Code.ensure_loaded?(Snex) do
  # On a machine without Hex, Mix.install wants to install it before it takes anything from its cache.
  hex? = Path.wildcard(Path.join(Mix.path_for(:archives), "hex-*")) != []
  Mix.install([{:snex, path: Path.expand("..", __DIR__)}], force: not hex?)
end

{:ok, python} =
  Snex.Interpreter.start_link(
    # A Python that the machine has will do.
    python_preference: :system,
    pyproject_toml: """
    [project]
    name = "packages"
    version = "0.0.0"
    requires-python = ">=3.10"
    dependencies = ["packaging>=24"]
    """
  )

versions = ["1.10", "1.9", "1.10rc1", "1.10.post1"]

{:ok, sorted} =
  Snex.pyeval(python, "from packaging.version import Version; return sorted(versions, key=Version)", %{
    "versions" => versions
  })

IO.puts("As Python's packages order their versions: #{Enum.join(sorted, " < ")}")
:ok = Snex.Interpreter.stop(python)
