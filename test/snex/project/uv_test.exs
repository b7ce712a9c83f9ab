defmodule Snex.Project.UvTest do
  # uv's own configuration, as it stands in the environment of whoever compiles.
  use ExUnit.Case, async: true

  alias Snex.{InstallVM, Project, PythonPackage}

  @moduletag :tmp_dir

  setup %{tmp_dir: tmp_dir} do
    %{root: Path.join(tmp_dir, "snex"), cache: Path.join(tmp_dir, "cache")}
  end

  defp toml(dependencies), do: PythonPackage.toml("configured", dependencies)

  defp install(context, dependencies, env) do
    InstallVM.install(__MODULE__, {:toml, toml(dependencies)}, [root: context.root], env)
  end

  defp python(context, code) do
    project = Project.new(__MODULE__, {:toml, ""}, root: context.root)
    {output, 0} = System.cmd(Project.python!(project), ["-c", code])
    String.trim(output)
  end

  # A folder with one package, as pip and uv take it in place of an index.
  defp links(context) do
    dir = Path.join(context.tmp_dir, "links")
    File.mkdir_p!(dir)

    code = """
    import sys, zipfile
    with zipfile.ZipFile(sys.argv[1] + "/snex_sample-1.2-py3-none-any.whl", "w") as wheel:
        info = "snex_sample-1.2.dist-info/"
        wheel.writestr("snex_sample.py", "answer = 42")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: snex-sample\\nVersion: 1.2\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    """

    [{_name, python} | _] = Snex.Case.pythons()
    {_, 0} = System.cmd(python, ["-c", code, dir])
    dir
  end

  test "a certificate that uv does not trust: which variables name others", context do
    uv = Path.join(context.tmp_dir, "uv")

    File.write!(uv, """
    #!/bin/sh
    [ "$1" = lock ] || exec uv "$@"
    echo "error: Failed to fetch: https://example.invalid/simple/iniconfig/" >&2
    echo "  cause: invalid peer certificate: UnknownIssuer" >&2
    exit 2
    """)

    File.chmod!(uv, 0o755)
    opts = [root: context.root, uv: uv]
    assert {{:error, message}, _} = InstallVM.install(__MODULE__, {:toml, toml(["iniconfig"])}, opts)
    assert message =~ "uv does not trust the server's certificate"
    assert message =~ "Set SSL_CERT_FILE to a file with the certificates to trust, or "
    assert message =~ "SSL_CERT_FILE"
    refute message =~ "UV_DEFAULT_INDEX"
  end

  test "offline, with an empty cache: uv's own words, and the command that failed", context do
    env = %{"UV_OFFLINE" => "1", "UV_CACHE_DIR" => context.cache}
    assert {{:error, message}, output} = install(context, ["iniconfig"], env)
    assert message =~ ~r/this command ended with status 1:\n\n    uv lock\n/
    assert message =~ Path.join(context.root, "projects/Snex.Project.UvTest")
    assert message =~ "iniconfig was not found in the cache"
    assert message =~ "the network was disabled"
    assert message =~ "uv could not reach the packages. Set UV_DEFAULT_INDEX to another index"
    # Said once: while it runs, uv's progress is shown.
    assert output =~ "[Snex.Project.UvTest] "
    refute output =~ "iniconfig was not found in the cache"
    assert File.dir?(context.cache)
  end

  test "without a network, the way to a Python that is there", context do
    # Nothing listens on this port.
    env = %{"UV_PYTHON_INSTALL_MIRROR" => "http://127.0.0.1:9", "UV_HTTP_RETRIES" => "0"}
    opts = [root: context.root, python_preference: :only_managed]
    assert {{:error, message}, output} = InstallVM.install(__MODULE__, {:toml, toml([])}, opts, env)
    assert message =~ "uv could not get a Python. To use a Python of this machine, such as /"
    assert message =~ "set the option `python_preference: :system`, or set UV_PYTHON to its path"
    refute output =~ "error:"
  end

  test "packages come from where the variables say", context do
    env = %{"UV_FIND_LINKS" => links(context), "UV_NO_INDEX" => "1", "UV_CACHE_DIR" => context.cache}
    assert {:ok, output} = install(context, ["snex-sample"], env)
    assert output =~ "snex-sample==1.2"
    assert python(context, "import snex_sample; print(snex_sample.answer)") == "42"
  end

  test "a proxy is asked", context do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    proxy = "http://127.0.0.1:#{port}"

    requests =
      Task.async(fn ->
        {:ok, socket} = :gen_tcp.accept(listener)
        {:ok, request} = :gen_tcp.recv(socket, 0)
        :gen_tcp.send(socket, "HTTP/1.1 403 Not today\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        # Whoever asks once more is refused.
        :gen_tcp.close(listener)
        request
      end)

    env = %{
      "HTTPS_PROXY" => proxy,
      "ALL_PROXY" => proxy,
      "NO_PROXY" => nil,
      "no_proxy" => nil,
      "UV_HTTP_RETRIES" => "0",
      "UV_CACHE_DIR" => context.cache
    }

    assert {{:error, message}, _} = install(context, ["iniconfig"], env)
    assert "CONNECT " <> _ = Task.await(requests)
    assert message =~ "uv lock"
    assert message =~ "tunnel"
  end

  test "of two words about which Python to use, the project's counts", context do
    env = %{"UV_MANAGED_PYTHON" => "1"}
    opts = [root: context.root, python_preference: :only_system]
    assert {:ok, _} = InstallVM.install(__MODULE__, {:toml, toml([])}, opts, env)
    refute python(context, "import sys; print(sys.base_prefix)") |> String.starts_with?(context.root)
  end

  test "what is set for another project of uv has no part in this one", context do
    elsewhere = Path.join(context.tmp_dir, "elsewhere")
    File.mkdir_p!(elsewhere)

    env = %{
      "UV_PROJECT" => elsewhere,
      "UV_WORKING_DIR" => elsewhere,
      "UV_PROJECT_ENVIRONMENT" => Path.join(elsewhere, ".venv"),
      "VIRTUAL_ENV" => Path.join(elsewhere, ".venv"),
      "UV_PYTHON_INSTALL_DIR" => Path.join(elsewhere, "python"),
      "UV_LOCKED" => "1",
      "UV_FROZEN" => "1"
    }

    assert {:ok, _} = install(context, [], env)
    assert python(context, "import sys; print(sys.prefix)") |> String.starts_with?(context.root)
    assert File.ls!(elsewhere) == []
  end

  test "what is installed does not link into uv's cache", context do
    env = %{
      "UV_LINK_MODE" => "symlink",
      "UV_FIND_LINKS" => links(context),
      "UV_NO_INDEX" => "1",
      "UV_CACHE_DIR" => context.cache
    }

    assert {:ok, _} = install(context, ["snex-sample"], env)
    File.rm_rf!(context.cache)
    assert python(context, "import snex_sample; print(snex_sample.answer)") == "42"
  end
end
