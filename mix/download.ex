defmodule Snex.Prebuilt.Download do
  @moduledoc """
  Fetches an archive of native code by its SHA-256, once for each user.

  Archives are kept in the user's cache (`snex/prebuilt` there, or the folder that `SNEX_PREBUILT_CACHE` names), so that other
  projects, and builds without a network, find them. A name appears in the cache only when its content has been checked; each
  download writes to a file of its own before, so two builds at once do not disturb each other, and an interrupted one leaves
  nothing that could be mistaken for an archive.

  It lives outside `lib` because it has to be there before anything in `lib` is compiled.
  """

  # In milliseconds. Without data the connection counts as lost.
  @connect_timeout 15_000
  @timeout 300_000

  @typedoc """
  Why there is no archive: it could not be had (another way to the native code may be tried), or its content is not what
  was promised (which is an error).
  """
  @type failure :: {:unavailable | :wrong, String.t()}

  @doc """
  Returns the path of the archive `name`, whose SHA-256 is `sum`, in the cache; fetches it from `url` if it is not there.

  `url` begins with `file:`, `http:` or `https:`. The variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in
  lower case, name proxies.
  """
  @spec fetch(String.t(), String.t(), String.t(), Path.t()) :: {:ok, Path.t()} | {:error, failure}
  def fetch(url, name, sum, cache \\ cache()) do
    # The sum is in the name: an archive of the same name that was built again is another file.
    path = Path.join([cache, String.slice(sum, 0, 16), name])

    if File.regular?(path) and Snex.Prebuilt.sha256(path) == sum,
      do: {:ok, path},
      else: fetch_into(path, url, sum, cache)
  end

  @doc """
  The folder with the archives of this user.
  """
  @spec cache() :: Path.t()
  def cache do
    case System.get_env("SNEX_PREBUILT_CACHE") do
      unset when unset in [nil, ""] -> Path.join(:filename.basedir(:user_cache, "snex"), "prebuilt")
      folder -> Path.expand(folder)
    end
  end

  defp fetch_into(path, url, sum, cache) do
    unfinished = "#{path}.#{System.pid()}-#{System.unique_integer([:positive])}"

    try do
      make_private!(cache)
      File.mkdir_p!(Path.dirname(path))

      with :ok <- get(URI.parse(url), url, unfinished),
           :ok <- check(url, Snex.Prebuilt.sha256(unfinished), sum) do
        File.rename!(unfinished, path)
        {:ok, path}
      end
    rescue
      error in [File.Error, File.RenameError] -> {:error, {:unavailable, Exception.message(error)}}
    after
      File.rm(unfinished)
    end
  end

  # A folder that is there already may be shared on purpose.
  defp make_private!(cache) do
    if not File.dir?(cache) do
      File.mkdir_p!(cache)
      File.chmod!(cache, 0o700)
    end
  end

  defp check(_url, sum, sum), do: :ok

  defp check(url, seen, wanted),
    do: {:error, {:wrong, "#{url} has the SHA-256 #{seen}, and should have #{wanted}"}}

  ## Where it comes from

  defp get(%URI{scheme: "file", path: path}, url, to) when is_binary(path) do
    case File.cp(URI.decode(path), to) do
      :ok -> :ok
      {:error, reason} -> {:error, {:unavailable, "#{url}: #{:file.format_error(reason)}"}}
    end
  end

  defp get(%URI{scheme: scheme, host: host} = uri, url, to)
       when scheme in ["http", "https"] and host not in [nil, ""] do
    client = start_client(uri)

    # A connection that breaks is tried once more.
    result =
      with {:error, broken} when broken != :timeout <- request(client, uri, url, to) do
        request(client, uri, url, to)
      end

    explain(result, url)
  end

  defp get(_uri, url, _to),
    do: {:error, {:unavailable, "#{url} is no address: it should begin with https://, http:// or file:///"}}

  defp request(client, uri, url, to) do
    File.rm(to)
    verify = if uri.scheme == "https", do: [ssl: :httpc.ssl_verify_host_options(true)], else: []
    headers = [{~c"user-agent", ~c"snex"}]
    # A file of its own: the archive is never in memory as a whole.
    options = [stream: to_charlist(to), body_format: :binary]

    :httpc.request(
      :get,
      {to_charlist(url), headers},
      [connect_timeout: @connect_timeout, timeout: @timeout] ++ verify,
      options,
      client
    )
  end

  defp explain({:ok, :saved_to_file}, _url), do: :ok

  defp explain({:ok, {{_version, status, phrase}, _headers, _body}}, url),
    do: {:error, {:unavailable, "#{url}: the server answers #{status} #{phrase}"}}

  defp explain({:error, reason}, url), do: {:error, {:unavailable, "#{url}: #{reason(reason)}"}}

  # What httpc says of a connection is a list of what it has tried, one address family after the other.
  defp reason({:failed_connect, [{:to_address, {host, port}} | tried]}) do
    case Enum.find_value(tried, &if(is_tuple(&1), do: elem(&1, tuple_size(&1) - 1))) do
      why when is_atom(why) and why != nil -> "no connection to #{host}:#{port}, #{:inet.format_error(why)}"
      why -> "no connection to #{host}:#{port}, #{inspect(why)}"
    end
  end

  defp reason(:timeout), do: "no answer within #{div(@timeout, 1000)} seconds"

  defp reason(closed) when closed in [:socket_closed_remotely, {:shutdown, :server_closed}],
    do: "the connection was closed before the whole archive had come"

  defp reason(reason), do: inspect(reason)

  defp start_client(uri) do
    # Mix hides applications that a project does not depend on.
    for application <- [:crypto, :public_key, :ssl, :inets], do: Mix.ensure_application!(application)
    {:ok, _} = Application.ensure_all_started([:ssl, :inets])

    # Clients of its own: their settings are nobody else's, and one that has no proxy never had one.
    {client, settings} =
      case proxy(uri.scheme) do
        nil -> {:snex_prebuilt, []}
        settings -> {:snex_prebuilt_through_proxy, settings}
      end

    with {:error, {:already_started, _pid}} <- :inets.start(:httpc, profile: client), do: :ok
    :ok = :httpc.set_options(settings, client)
    client
  end

  defp proxy(scheme) do
    with address when is_binary(address) <- variable("#{scheme}_proxy"),
         # As curl takes it: without a scheme it is a host and a port.
         address = if(address =~ "://", do: address, else: "http://" <> address),
         %URI{host: host, port: port} when host not in [nil, ""] and is_integer(port) <- URI.parse(address) do
      key = if scheme == "https", do: :https_proxy, else: :proxy
      [{key, {{to_charlist(host), port}, no_proxy()}}]
    else
      _ -> nil
    end
  end

  defp no_proxy do
    for name <- String.split(variable("no_proxy") || "", ",", trim: true),
        name = String.trim(name),
        name != "" do
      # `.example.org` stands for all hosts there, which httpc writes with a star.
      to_charlist(if String.starts_with?(name, "."), do: "*" <> name, else: name)
    end
  end

  defp variable(name) do
    Enum.find_value([name, String.upcase(name)], fn name ->
      if (value = System.get_env(name, "")) != "", do: value
    end)
  end
end
