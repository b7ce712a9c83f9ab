defmodule Snex.Mix.VersionTest do
  use ExUnit.Case, async: true

  test "the version is the same wherever it stands" do
    version = Mix.Project.config()[:version]

    for path <- ~w(Cargo.toml kino_snex/mix.exs py_src/pyproject.toml py_src/snex/_version.py) do
      assert [_, ^version] = Regex.run(~r/^ *version ?[=:] "(.*)"/mi, File.read!(path)), path
    end

    assert File.read!("CHANGELOG.md") =~ "\n## [#{version}]"
  end
end
