defmodule Snex.Mix.DownloadTest do
  # Not async: some of these tests set environment variables.
  use ExUnit.Case

  import Snex.WebServer, only: [answer: 3]

  alias Snex.Prebuilt.{Checksums, Download}
  alias Snex.WebServer

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @name "snex-9.9.9-some-machine.tar.gz"
  @content :binary.copy("an archive ", 50_000)
  @sum :crypto.hash(:sha256, @content) |> Base.encode16(case: :lower)

  setup %{tmp_dir: tmp_dir} do
    {:ok, cache: Path.join(tmp_dir, "cache")}
  end

  defp serve(content), do: WebServer.start!(fn _line -> answer("200 OK", [], content) end).port
  defp url(port), do: "http://127.0.0.1:#{port}/#{@name}"

  defp files(cache), do: for(path <- Path.wildcard(cache <> "/**"), File.regular?(path), do: path)

  defp with_env(variables) do
    before = Map.new(variables, fn {name, _} -> {name, System.get_env(name)} end)
    on_exit(fn -> System.put_env(before) end)
    System.put_env(variables)
  end

  describe "a download" do
    test "is made once, and then found in the cache, which is its owner's alone", %{cache: cache} do
      port = serve(@content)
      assert {:ok, path} = Download.fetch(url(port), @name, @sum, cache)
      assert File.read!(path) == @content
      assert files(cache) == [path]
      assert Bitwise.band(File.stat!(cache).mode, 0o777) == 0o700

      line = "GET /#{@name} HTTP/1.1"
      assert_received {:request, ^line}
      assert Download.fetch("http://127.0.0.1:1/gone", @name, @sum, cache) == {:ok, path}
      refute_received {:request, _}
    end

    test "is made again if the file in the cache is damaged", %{cache: cache} do
      port = serve(@content)
      {:ok, path} = Download.fetch(url(port), @name, @sum, cache)
      File.write!(path, "half an archive")
      assert {:ok, ^path} = Download.fetch(url(port), @name, @sum, cache)
      assert File.read!(path) == @content
    end

    test "can be made twice at once", %{cache: cache} do
      port = serve(@content)

      results =
        1..4
        |> Enum.map(fn _ -> Task.async(fn -> Download.fetch(url(port), @name, @sum, cache) end) end)
        |> Task.await_many(60_000)

      assert [{:ok, path}] = Enum.uniq(results)
      assert files(cache) == [path]
    end

    test "follows a redirect", %{cache: cache} do
      target = serve(@content)
      port = WebServer.start!(fn _line -> answer("302 Found", [{"location", url(target)}], "") end).port
      assert {:ok, path} = Download.fetch(url(port), @name, @sum, cache)
      assert File.read!(path) == @content
    end

    test "goes through the proxy of the environment, but not to the hosts of NO_PROXY", %{cache: cache} do
      proxy = serve(@content)
      with_env(%{"http_proxy" => "http://127.0.0.1:#{proxy}", "no_proxy" => nil, "NO_PROXY" => nil})
      assert {:ok, path} = Download.fetch("http://snex.invalid/#{@name}", @name, @sum, cache)
      line = "GET http://snex.invalid/#{@name} HTTP/1.1"
      assert_received {:request, ^line}

      File.rm!(path)
      with_env(%{"no_proxy" => "localhost, 127.0.0.1"})
      port = serve(@content)
      assert {:ok, ^path} = Download.fetch(url(port), @name, @sum, cache)
      line = "GET /#{@name} HTTP/1.1"
      assert_received {:request, ^line}
    end

    test "of a file is a copy", %{cache: cache, tmp_dir: tmp_dir} do
      File.write!(Path.join(tmp_dir, "with space"), @content)
      url = "file://" <> URI.encode(Path.join(tmp_dir, "with space"))
      assert {:ok, path} = Download.fetch(url, @name, @sum, cache)
      assert File.read!(path) == @content
    end
  end

  describe "nothing is left in the cache, and the reason is said, if" do
    test "the archive is not there", %{cache: cache, tmp_dir: tmp_dir} do
      port = WebServer.start!(fn _line -> answer("404 Not Found", [], "no such file") end).port
      assert {:error, {:unavailable, message}} = Download.fetch(url(port), @name, @sum, cache)
      assert message == "#{url(port)}: the server answers 404 Not Found"

      assert {:error, {:unavailable, message}} = Download.fetch("file://#{tmp_dir}/none", @name, @sum, cache)
      assert message =~ "no such file or directory"
      assert files(cache) == []
    end

    test "there is no network", %{cache: cache} do
      # A port that nobody listens on any more.
      {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(listener)
      :gen_tcp.close(listener)
      assert {:error, {:unavailable, message}} = Download.fetch(url(port), @name, @sum, cache)
      assert message =~ "no connection to 127.0.0.1:#{port}, connection refused"
      assert {:error, {:unavailable, message}} = Download.fetch("http://snex.invalid/x", @name, @sum, cache)
      assert message =~ "no connection to snex.invalid:80"
      assert files(cache) == []
    end

    test "the connection breaks, also at the second attempt", %{cache: cache} do
      cut = answer("200 OK", [], @content) |> IO.iodata_to_binary() |> binary_slice(0, 100_000)
      port = WebServer.start!(fn _line -> cut end).port
      assert {:error, {:unavailable, message}} = Download.fetch(url(port), @name, @sum, cache)
      assert message =~ "the connection was closed before the whole archive had come"
      assert_received {:request, _}
      assert_received {:request, _}
      assert files(cache) == []
    end

    test "what comes is something else", %{cache: cache} do
      port = serve("something else")
      assert {:error, {:wrong, message}} = Download.fetch(url(port), @name, @sum, cache)
      assert message =~ ~r/has the SHA-256 [0-9a-f]{64}, and should have #{@sum}/
      assert files(cache) == []
    end

    test "the address is none", %{cache: cache} do
      for url <- ["ftp://example.org/x", "snex.tar.gz", "http:///x"] do
        assert {:error, {:unavailable, message}} = Download.fetch(url, @name, @sum, cache)
        assert message =~ "#{url} is no address: it should begin with https://, http:// or file:///"
      end
    end
  end

  test "an interrupted connection is tried once more", %{cache: cache} do
    {:ok, attempts} = Agent.start_link(fn -> 0 end)
    whole = answer("200 OK", [], @content) |> IO.iodata_to_binary()

    server =
      WebServer.start!(fn _line ->
        if Agent.get_and_update(attempts, &{&1, &1 + 1}) == 0,
          do: binary_slice(whole, 0, 100_000),
          else: whole
      end)

    assert {:ok, path} = Download.fetch(url(server.port), @name, @sum, cache)
    assert File.read!(path) == @content
  end

  describe "the checksum file" do
    setup %{tmp_dir: tmp_dir}, do: {:ok, path: Path.join(tmp_dir, "checksum")}

    test "has the address and the sum of each archive in a folder", %{path: path, tmp_dir: tmp_dir} do
      File.write!(Path.join(tmp_dir, @name), @content)
      File.write!(Path.join(tmp_dir, "snex-9.9.8-some-machine.tar.gz"), "an older one")
      assert Checksums.write!(path, tmp_dir, "https://example.org/v{version}/{archive}", "9.9.9") == [@name]

      assert Checksums.find(path, @name, "9.9.9") == {:ok, "https://example.org/v9.9.9/#{@name}", @sum}
      assert Checksums.find(path, "snex-9.9.9-other.tar.gz", "9.9.9") == :unlisted
      assert Checksums.find(path <> "s", @name, "9.9.9") == :none

      with_env(%{"SNEX_PREBUILT_URL" => "file:///mirror/{archive}"})
      assert Checksums.find(path, @name, "9.9.9") == {:ok, "file:///mirror/#{@name}", @sum}
    end

    test "is refused with the line that is wrong", %{path: path} do
      File.write!(path, "# url: https://example.org/{archive}\nnot a sum  name\n")
      assert {:error, message} = Checksums.find(path, @name, "9.9.9")
      assert message =~ "#{path}:2: here should stand"
      File.write!(path, "#{@sum}  #{@name}\n")
      assert {:error, message} = Checksums.find(path, @name, "9.9.9")
      assert message =~ "the first line should be `# url: ADDRESS`"
    end
  end
end
