defmodule Snex.Project.Advice do
  # What is to be said of uv's failures beyond its own words.
  @moduledoc false

  alias Snex.{Native, Os}

  @doc """
  uv's words on a dependency string that it cannot read. From uv alone they come only for groups; for the others it has the
  project's build backend find the mistake, whose words are long. `lock` runs `uv lock` in a folder.
  """
  @spec on_dependencies(String.t(), binary(), Path.t(), (Path.t() -> :ok | {:error, String.t()})) ::
          String.t()
  def on_dependencies(message, toml, folder, lock) do
    if message =~ "pep508" do
      entries = for {_, _, text} <- Native.project_read(toml).dependencies, do: JSON.encode!(text)
      File.mkdir_p!(folder)

      File.write!(Path.join(folder, "pyproject.toml"), """
      [project]
      name = "dependencies"
      version = "0"
      requires-python = ">=3.10"
      [dependency-groups]
      all = [#{Enum.join(entries, ", ")}]
      """)

      case lock.(folder) do
        {:error, better} -> if(better =~ "Failed to parse entry", do: better, else: message)
        :ok -> message
      end
    else
      message
    end
  after
    File.rm_rf!(folder)
  end

  @doc """
  What to add to uv's words; empty when they say it all.
  """
  @spec about(String.t()) :: String.t()
  def about(message) do
    cond do
      message =~ ~r/invalid peer certificate/i ->
        "\nuv does not trust the server's certificate, which may be that of a proxy. Set SSL_CERT_FILE to a file with the " <>
          "certificates to trust, or UV_SYSTEM_CERTS=true (UV_NATIVE_TLS=true in older versions of uv) to use those of this machine.\n"

      message =~
          ~r/Failed to (download|fetch).*(python-build-standalone|pypy)|No interpreter found|download.*(python|cpython)/i ->
        "\nuv could not get a Python. #{present()} Behind a firewall, set UV_PYTHON_INSTALL_MIRROR to a mirror.\n"

      message =~ ~r/Failed to fetch|error sending request|dns error|network was disabled/i ->
        "\nuv could not reach the packages. Set UV_DEFAULT_INDEX to another index, or UV_FIND_LINKS to a folder of packages; see " <>
          "https://docs.astral.sh/uv/reference/environment/\n"

      true ->
        ""
    end
  end

  defp present do
    case Enum.find_value(["python3", "python"], &Os.find_executable/1) do
      nil ->
        "There is none on PATH either: install one, and set the option `python_preference: :system`."

      path ->
        "To use a Python of this machine, such as #{path}, set the option `python_preference: :system`, or set UV_PYTHON to its path."
    end
  end
end
