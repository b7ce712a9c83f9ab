defmodule Snex.Mix.PrebuiltTest do
  use ExUnit.Case, async: true

  alias Snex.OtherProject
  alias Snex.Prebuilt
  alias Snex.Prebuilt.Checksums
  alias Snex.WebServer

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @version Mix.Project.config()[:version]

  setup %{tmp_dir: tmp_dir} do
    archive =
      Prebuilt.create!(Application.app_dir(:snex, "priv/native"), Path.join(tmp_dir, "made"), @version)

    {:ok, archive: archive, folder: Path.join(tmp_dir, "native")}
  end

  # Another archive, with a changed manifest.
  defp changed(archive, changes) do
    {:ok, members} = :erl_tar.extract(to_charlist(archive), [:compressed, :memory])

    members =
      for {name, content} <- members do
        if name == ~c"manifest.json",
          do: {name, content |> JSON.decode!() |> Map.merge(changes) |> JSON.encode!()},
          else: {name, content}
      end

    path = String.replace(archive, ".tar.gz", "-changed.tar.gz")
    :ok = :erl_tar.create(to_charlist(path), members, [:compressed])
    path
  end

  defp refusal(archive, folder, opts \\ []) do
    assert {:error, message} = Prebuilt.install(archive, folder, @version, opts)
    # Nothing is half there.
    refute File.exists?(folder)
    assert message =~ archive
    message
  end

  defp own_sum(archive), do: [sha256: Prebuilt.sha256(archive)]

  # A folder for PATH: all that mix needs is in it, and neither cargo nor rustc.
  defp without_cargo!(tmp_dir) do
    bin = Path.join(tmp_dir, "bin")
    File.mkdir_p!(bin)

    for program <-
          ~w(mix elixir erl sh env dirname basename readlink sed uname getconf git cat expr which tr) do
      if path = System.find_executable(program), do: File.ln_s!(path, Path.join(bin, program))
    end

    bin
  end

  # Snex as a package has it, with a checksum file, and a project that depends on it.
  defp published!(tmp_dir, archives, template) do
    package = Path.join(tmp_dir, "package")
    root = File.cwd!()
    File.mkdir_p!(package)

    for name <- ~w(lib mix native py_src mix.exs Cargo.toml Cargo.lock README.md),
        do: File.cp_r!(Path.join(root, name), Path.join(package, name))

    Checksums.write!(Path.join(package, "checksum"), archives, template, @version)

    OtherProject.create!(Path.join(tmp_dir, "app"), %{
      "mix.exs" => """
      defmodule App.MixProject do
        use Mix.Project
        def project, do: [app: :app, version: "0.1.0", deps: [{:snex, path: #{inspect(package)}}]]
      end
      """
    })
  end

  @tag :slow
  test "a package with a checksum file takes its native code from a server, once, and works", %{
    archive: archive,
    tmp_dir: tmp_dir
  } do
    name = Path.basename(archive)

    %{port: server, id: id} =
      WebServer.start!(fn _line -> WebServer.answer("200 OK", [], File.read!(archive)) end)

    folder = published!(tmp_dir, Path.dirname(archive), "http://127.0.0.1:#{server}/v{version}/{archive}")
    env = [{"PATH", without_cargo!(tmp_dir)}, {"SNEX_PREBUILT_CACHE", Path.join(tmp_dir, "cache")}]
    {python, 0} = System.cmd("python3", ["-c", "import sys; print(sys.executable, end='')"])

    code =
      ~s|{:ok, i} = Snex.Interpreter.start_link(python: #{inspect(python)}); IO.inspect(Snex.pyeval(i, "return 6 * 7"))|

    assert OtherProject.mix!(folder, ["run", "-e", code], env) =~ "{:ok, 42}"
    line = "GET /v#{@version}/#{name} HTTP/1.1"
    assert_received {:request, ^line}

    # From the cache, without the server.
    stop_supervised!(id)
    File.rm_rf!(Path.join(folder, "_build"))
    assert OtherProject.mix!(folder, ["run", "-e", code], env) =~ "{:ok, 42}"
    refute_received {:request, _}

    # Without cache and server there would have to be a cargo, and what is missing is said.
    build = ["deps.compile", "snex", "--force"]
    File.rm_rf!(Path.join(tmp_dir, "cache"))
    assert {output, 1} = OtherProject.mix(folder, build, env)
    assert output =~ "no connection to 127.0.0.1:#{server}, connection refused"
    assert output =~ "there is no cargo on PATH"
    assert output =~ "Without Rust, set SNEX_PREBUILT"

    # So is a machine that the package has nothing for.
    mirror = [{"SNEX_PREBUILT_URL", "file://#{Path.dirname(archive)}/{archive}"} | env]
    checksums = Path.join(tmp_dir, "package/checksum")
    listed = File.read!(checksums)
    File.write!(checksums, String.replace(listed, Prebuilt.triple(), "riscv64gc-unknown-linux-gnu"))
    assert {output, 1} = OtherProject.mix(folder, build, mirror)
    assert output =~ "Snex's native code is built here: there is no #{name} for this kind of machine"

    # Another content than the package promises is an error, and never built around.
    File.write!(checksums, String.replace(listed, Prebuilt.sha256(archive), String.duplicate("0", 64)))
    assert {output, 1} = OtherProject.mix(folder, build, mirror)
    assert output =~ ~r/has the SHA-256 [0-9a-f]{64}, and should have 0000/
    refute output =~ "cargo on PATH"

    # A mirror will do, and SNEX_BUILD asks nobody.
    File.write!(checksums, listed)
    OtherProject.mix!(folder, build, mirror)
    assert {output, 1} = OtherProject.mix(folder, build, [{"SNEX_BUILD", "true"} | mirror])
    assert output =~ "there is no cargo on PATH"
    assert {output, 1} = OtherProject.mix(folder, build, [{"SNEX_BUILD", "yes"} | mirror])
    assert output =~ ~s(SNEX_BUILD is "yes", and should be true or false)
  end

  @tag :slow
  test "a project is built with an archive and without cargo, and works", %{
    archive: archive,
    tmp_dir: tmp_dir
  } do
    folder = OtherProject.create!(Path.join(tmp_dir, "app"), %{})

    bin = without_cargo!(tmp_dir)
    env = [{"PATH", bin}, {"SNEX_PREBUILT", archive}]
    # Not one of the small scripts that look for the right Python: they need more than that PATH has.
    {python, 0} = System.cmd("python3", ["-c", "import sys; print(sys.executable, end='')"])

    code =
      ~s|{:ok, i} = Snex.Interpreter.start_link(python: #{inspect(python)}); IO.inspect(Snex.pyeval(i, "return 6 * 7"))|

    assert OtherProject.mix!(folder, ["run", "-e", code], env) =~ "{:ok, 42}"
    # Another time there is nothing to do.
    refute OtherProject.mix!(folder, ["run", "-e", code], env) =~ "ompiling"

    # Without the archive, there would have to be a cargo.
    assert {output, 1} = OtherProject.mix(folder, ["deps.compile", "snex", "--force"], [{"PATH", bin}])
    assert output =~ "there is no cargo on PATH"

    # With a cargo that fails: the missing C compiler is said before the build, and what cargo says after it.
    cargo = Path.join(bin, "cargo")

    File.write!(cargo, ~S"""
    #!/bin/sh
    [ "$1" = --version ] && echo "cargo 99.0.0" && exit
    echo "error: linker not found" >&2
    exit 101
    """)

    File.chmod!(cargo, 0o755)

    assert {output, 1} = OtherProject.mix(folder, ["deps.compile", "snex", "--force"], [{"PATH", bin}])

    assert output =~
             ~r/There is no C compiler `cc` on PATH.*error: linker not found.*cargo ended with status 101/s
  end

  test "the name says version and machine", %{archive: archive} do
    assert Path.basename(archive) == "snex-#{@version}-#{Prebuilt.triple()}.tar.gz"
    assert Prebuilt.triple() =~ ~r/^(x86_64|aarch64)-(unknown-linux-(gnu|musl)|apple-darwin)$/
    assert File.read!(archive <> ".sha256") == "#{Prebuilt.sha256(archive)}  #{Path.basename(archive)}\n"
  end

  test "what is not there, or not an archive of Snex's, is refused", %{archive: archive, folder: folder} do
    assert refusal("/no/such/archive.tar.gz", folder) =~ "there is no file"
    other = archive <> ".other"
    File.write!(other, "no archive")
    assert refusal(other, folder, own_sum(other)) =~ "is no archive of Snex's"
    :ok = :erl_tar.create(to_charlist(other), [{~c"manifest.json", "{}"}], [:compressed])

    assert refusal(other, folder, own_sum(other)) =~
             "it should hold manifest.json, snex_etf.so, snex_nif.so, snex_warden"
  end

  test "a wrong checksum, or none, is refused", %{archive: archive, folder: folder} do
    assert refusal(archive, folder, sha256: String.duplicate("0", 64)) =~ "and should have 0000"
    File.write!(archive, "x", [:append])
    assert refusal(archive, folder) =~ ~r/has the SHA-256 [0-9a-f]{64}, and should have [0-9a-f]{64}/
    File.rm!(archive <> ".sha256")
    assert refusal(archive, folder) =~ "or into the variable SNEX_PREBUILT_SHA256"
  end

  test "another machine's, another version's and that of a newer glibc is refused", %{
    archive: archive,
    folder: folder
  } do
    other = changed(archive, %{"triple" => "riscv64gc-unknown-linux-gnu"})

    assert refusal(other, folder, own_sum(other)) =~
             "is for the machine riscv64gc-unknown-linux-gnu, this is #{Prebuilt.triple()}"

    other = changed(archive, %{"version" => "99.0.0"})
    assert refusal(other, folder, own_sum(other)) =~ "is for the version of Snex 99.0.0, this is #{@version}"

    other = changed(archive, %{"glibc" => [9, 99]})

    assert refusal(other, folder, [glibc: {2, 31}] ++ own_sum(other)) =~
             "needs glibc 9.99 or later, this machine has 2.31"

    # What the real files need, on a machine that is older than any.
    assert refusal(archive, folder, glibc: {2, 1}) =~ ~r/needs glibc 2\.\d\d or later, this machine has 2\.1/
  end
end
