defmodule Snex.Prebuilt.Checksums do
  @moduledoc """
  The file `checksum` of a published package: where its archives of native code are, and what they are.

  The first line is the template of their address, in which `{version}` and `{archive}` are replaced; each other line is
  the SHA-256 and the name of one archive, as `sha256sum` writes it (which takes the first line for a comment):

      # url: https://example.org/releases/v{version}/{archive}
      d2c1...  snex-1.0.0-x86_64-unknown-linux-gnu.tar.gz

  A checkout has no such file, and builds with cargo. The variable `SNEX_PREBUILT_URL` replaces the template, for a mirror;
  what the archives have to contain is still said by the package.

  It lives outside `lib` because it has to be there before anything in `lib` is compiled.
  """

  @doc """
  Finds the archive `name` in the checksum file at `path`: its address and its SHA-256.

  `:none` if there is no file, `:unlisted` if the file does not name the archive.
  """
  @spec find(Path.t(), String.t(), String.t()) ::
          {:ok, url :: String.t(), sha256 :: String.t()} | :none | :unlisted | {:error, String.t()}
  def find(path, name, version) do
    case File.read(path) do
      {:ok, text} -> find_in(parse(text), path, name, version)
      {:error, :enoent} -> :none
      {:error, reason} -> {:error, "#{path}: #{:file.format_error(reason)}"}
    end
  end

  defp find_in({:error, line}, path, _name, _version) do
    {:error, "#{path}:#{line}: here should stand `# url: ADDRESS`, or the SHA-256 of an archive and its name"}
  end

  defp find_in({:ok, template, sums}, path, name, version) do
    case {sums, System.get_env("SNEX_PREBUILT_URL", "")} do
      {%{^name => _sum}, ""} when template == nil ->
        {:error, "#{path}: nothing says where #{name} is: the first line should be `# url: ADDRESS`"}

      {%{^name => sum}, ""} ->
        {:ok, address(template, name, version), sum}

      {%{^name => sum}, mirror} ->
        {:ok, address(mirror, name, version), sum}

      {_sums, _mirror} ->
        :unlisted
    end
  end

  defp address(template, name, version) do
    template |> String.replace("{version}", version) |> String.replace("{archive}", name)
  end

  defp parse(text) do
    text
    |> String.split("\n")
    |> Enum.with_index(1)
    |> Enum.reduce_while({:ok, nil, %{}}, fn {line, number}, {:ok, template, sums} ->
      case String.split(line) do
        [] -> {:cont, {:ok, template, sums}}
        ["#", "url:", template] -> {:cont, {:ok, template, sums}}
        [<<sum::binary-64>>, name] -> {:cont, {:ok, template, Map.put(sums, name, String.downcase(sum))}}
        _ -> {:halt, {:error, number}}
      end
    end)
  end

  @doc """
  Writes the checksum file at `path` for all archives of `version` in `folder`, and returns their names.
  """
  @spec write!(Path.t(), Path.t(), String.t(), String.t()) :: [String.t()]
  def write!(path, folder, template, version) do
    names =
      for name <- Enum.sort(File.ls!(folder)),
          String.starts_with?(name, "snex-#{version}-") and String.ends_with?(name, ".tar.gz"),
          do: name

    lines = for name <- names, do: "#{Snex.Prebuilt.sha256(Path.join(folder, name))}  #{name}\n"
    File.write!(path, ["# url: #{template}\n" | lines])
    names
  end
end

defmodule Mix.Tasks.Snex.Checksum do
  @shortdoc "Writes the checksum file of a package of Snex that is to be published"

  @moduledoc """
  Writes the file `checksum`, which makes `mix compile` take the native code of a published package from archives.

      mix snex.checksum FOLDER URL

  `FOLDER` has the archives that `mix snex.prebuild` has made on each kind of machine. `URL` is the address at which they
  will be, with `{version}` and `{archive}` in it:

      mix snex.checksum archives 'https://example.org/releases/v{version}/{archive}'

  The file belongs into the package and not into the repository: with it, changes of the Rust sources have no effect.
  """

  use Mix.Task

  alias Snex.Prebuilt.Checksums

  @impl Mix.Task
  def run([folder, url]) do
    if not String.contains?(url, "{archive}"), do: Mix.raise("The address #{url} should have {archive} in it")
    version = Mix.Project.config()[:version]
    path = Path.join(Path.dirname(Mix.Project.project_file()), "checksum")

    case Checksums.write!(path, folder, url, version) do
      [] ->
        File.rm!(path)

        Mix.raise(
          "There is no archive of Snex #{version} in #{folder}: `mix snex.prebuild #{folder}` makes one"
        )

      names ->
        Mix.shell().info(["#{path} names:\n" | Enum.map(names, &"  #{&1}\n")])
    end
  end

  def run(_args), do: Mix.raise("usage: mix snex.checksum FOLDER URL")
end
