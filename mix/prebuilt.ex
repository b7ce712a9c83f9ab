defmodule Snex.Prebuilt do
  @moduledoc """
  Archives with the native code that cargo would build: for machines without Rust.

  An archive `snex-<version>-<triple>.tar.gz` has the NIF, the warden, and `manifest.json`, which says for which version
  of Snex and which machines they are. Beside it stands its SHA-256, `<archive>.sha256`, as `sha256sum` writes it; the
  variable `SNEX_PREBUILT_SHA256` can give it instead. Without either an archive is refused: native code runs inside the
  VM, and with all its rights.

  It lives outside `lib` because it has to be there before anything in `lib` is compiled.
  """

  @manifest "manifest.json"
  @files ~w(snex_etf.so snex_nif.so snex_warden)

  @doc """
  Puts what is in `folder` into an archive in the folder `to`, with its checksum beside it; returns the archive's path.
  """
  @spec create!(Path.t(), Path.t(), String.t()) :: Path.t()
  def create!(folder, to, version) do
    manifest = %{version: version, triple: triple(), glibc: needed_glibc(folder)}
    name = name(version)
    archive = Path.join(to, name)
    File.mkdir_p!(to)
    members = for file <- @files, do: {to_charlist(file), to_charlist(Path.join(folder, file))}
    json = {to_charlist(@manifest), JSON.encode!(manifest)}
    :ok = :erl_tar.create(to_charlist(archive), [json | members], [:compressed])
    File.write!(archive <> ".sha256", "#{sha256(archive)}  #{name}\n")
    archive
  end

  @doc """
  What the archive of a version of Snex for this machine is called.
  """
  @spec name(String.t()) :: String.t()
  def name(version), do: "snex-#{version}-#{triple()}.tar.gz"

  @doc """
  Puts the files of an archive into `folder`, or says why they are of no use here; then nothing has been changed.

  Options, for what this machine is said to be: `:triple`, `:glibc` (`{major, minor}`, or `nil` where there is none),
  `:sha256` of the archive.
  """
  @spec install(Path.t(), Path.t(), String.t(), keyword()) :: :ok | {:error, String.t()}
  def install(archive, folder, version, opts \\ []) do
    with :ok <- there(archive),
         :ok <- check_sum(archive, Keyword.get_lazy(opts, :sha256, &given_sum/0)),
         {:ok, files} <- unpack(archive),
         {:ok, manifest} <- manifest(archive, files),
         :ok <- equal(archive, "version of Snex", manifest["version"], version),
         :ok <- equal(archive, "machine", manifest["triple"], Keyword.get_lazy(opts, :triple, &triple/0)),
         :ok <- check_glibc(archive, manifest["glibc"], Keyword.get_lazy(opts, :glibc, &own_glibc/0)) do
      for name <- @files, do: write!(Path.join(folder, name), Map.fetch!(files, name))
      :ok
    end
  end

  defp there(archive) do
    if File.regular?(archive), do: :ok, else: {:error, "there is no file #{archive}"}
  end

  defp given_sum do
    case System.get_env("SNEX_PREBUILT_SHA256") do
      unset when unset in [nil, ""] -> nil
      sum -> sum
    end
  end

  defp check_sum(archive, nil) do
    case File.read(archive <> ".sha256") do
      {:ok, line} ->
        check_sum(archive, line |> String.split() |> List.first(""))

      {:error, _} ->
        {:error,
         "nothing says what the SHA-256 of #{archive} should be: put it into #{archive}.sha256, as `sha256sum` " <>
           "writes it, or into the variable SNEX_PREBUILT_SHA256"}
    end
  end

  defp check_sum(archive, wanted) do
    case sha256(archive) do
      ^wanted -> :ok
      seen -> {:error, "#{archive} has the SHA-256 #{seen}, and should have #{wanted}"}
    end
  end

  defp unpack(archive) do
    case :erl_tar.extract(to_charlist(archive), [:compressed, :memory]) do
      {:ok, members} -> {:ok, Map.new(members, fn {name, content} -> {to_string(name), content} end)}
      {:error, reason} -> {:error, "#{archive} is no archive of Snex's: #{:erl_tar.format_error(reason)}"}
    end
  end

  defp manifest(archive, files) do
    with %{@manifest => json} <- files,
         [] <- @files -- Map.keys(files),
         {:ok, %{} = manifest} <- JSON.decode(json) do
      {:ok, manifest}
    else
      _ ->
        {:error,
         "#{archive} is no archive of Snex's: it should hold #{Enum.join([@manifest | @files], ", ")}"}
    end
  end

  defp equal(_archive, _what, same, same), do: :ok

  defp equal(archive, what, theirs, ours),
    do: {:error, "#{archive} is for the #{what} #{theirs}, this is #{ours}"}

  defp check_glibc(_archive, nil, _own), do: :ok
  # Where nobody knows, the attempt does no harm: what is missing is told when the NIF is loaded.
  defp check_glibc(_archive, _needed, nil), do: :ok

  defp check_glibc(archive, [major, minor], own) do
    if {major, minor} <= own do
      :ok
    else
      {own_major, own_minor} = own

      {:error,
       "#{archive} needs glibc #{major}.#{minor} or later, this machine has #{own_major}.#{own_minor}"}
    end
  end

  # As in `Mix.Tasks.Compile.Cargo`: what a running VM has mapped stays as it is.
  defp write!(path, content) do
    File.mkdir_p!(Path.dirname(path))
    unfinished = "#{path}.#{System.pid()}"
    File.write!(unfinished, content)
    File.chmod!(unfinished, 0o755)
    File.rename!(unfinished, path)
  end

  @doc """
  The SHA-256 of a file, in hexadecimal.
  """
  @spec sha256(Path.t()) :: String.t()
  def sha256(path) do
    # Mix hides applications that a project does not depend on.
    Mix.ensure_application!(:crypto)

    path
    |> File.stream!(65_536)
    |> Enum.reduce(:crypto.hash_init(:sha256), &:crypto.hash_update(&2, &1))
    |> :crypto.hash_final()
    |> Base.encode16(case: :lower)
  end

  @doc """
  The kind of machine that this VM runs on, as Rust names it, such as `x86_64-unknown-linux-gnu`.
  """
  @spec triple() :: String.t()
  def triple do
    [arch | rest] = :system_architecture |> :erlang.system_info() |> to_string() |> String.split("-")
    name = Enum.join(rest, "-")
    # Apple's name for it.
    arch = if arch == "arm64", do: "aarch64", else: arch

    cond do
      name =~ "darwin" -> "#{arch}-apple-darwin"
      name =~ "musl" -> "#{arch}-unknown-linux-musl"
      name =~ "linux" -> "#{arch}-unknown-linux-gnu"
      true -> Enum.join([arch | rest], "-")
    end
  end

  # The names of glibc's versions stand in the files as they are.
  defp needed_glibc(folder) do
    versions =
      for file <- @files,
          [major, minor] <-
            Regex.scan(~r/GLIBC_(\d+)\.(\d+)/, File.read!(Path.join(folder, file)), capture: :all_but_first),
          do: [String.to_integer(major), String.to_integer(minor)]

    Enum.max(versions, fn -> nil end)
  end

  defp own_glibc do
    with path when is_binary(path) <- System.find_executable("getconf"),
         {output, 0} <- System.cmd(path, ["GNU_LIBC_VERSION"], stderr_to_stdout: true),
         [major, minor] <- Regex.run(~r/(\d+)\.(\d+)/, output, capture: :all_but_first) do
      {String.to_integer(major), String.to_integer(minor)}
    else
      _ -> nil
    end
  end
end

defmodule Mix.Tasks.Snex.Prebuild do
  @shortdoc "Makes an archive of Snex's native code, for machines without Rust"

  @moduledoc """
  Makes an archive of the native code of this checkout of Snex, for machines without Rust.

      MIX_ENV=prod mix snex.prebuild [FOLDER]

  writes `snex-<version>-<triple>.tar.gz`, and its SHA-256 beside it, to the folder (`_build` by default). Elsewhere, with
  the same version of Snex and a machine of the same kind,

      SNEX_PREBUILT=path/to/snex-<version>-<triple>.tar.gz mix compile

  takes the native code from the archive, and needs no Rust. What was built against a newer glibc than a machine has is
  refused there: build on the oldest system that is to be served.
  """

  use Mix.Task

  @requirements ["compile"]

  @impl Mix.Task
  def run(args) do
    to = List.first(args, "_build")
    folder = Path.join([Mix.Project.app_path(), "priv", "native"])
    archive = Snex.Prebuilt.create!(folder, to, Mix.Project.config()[:version])
    Mix.shell().info("#{archive}\nsha256 #{Snex.Prebuilt.sha256(archive)}")
  end
end
