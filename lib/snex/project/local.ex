defmodule Snex.Project.Local do
  # Packages that were installed from a folder of this machine, as their `direct_url.json` says (PEP 610).
  #
  # uv installs members of a workspace, and sources with `editable = true`, as editable: Python then reads them from that folder.
  @moduledoc false

  alias Snex.Project.Files

  @type package :: %{name: String.t(), folder: Path.t(), editable?: boolean()}

  @doc """
  Those of a virtual environment.
  """
  @spec packages(venv :: Path.t()) :: [package()]
  def packages(venv) do
    for version <- Files.names(Path.join(venv, "lib")),
        site_packages = Path.join([venv, "lib", version, "site-packages"]),
        name <- Files.names(site_packages),
        Path.extname(name) == ".dist-info",
        {:ok, json} <- [File.read(Path.join([site_packages, name, "direct_url.json"]))],
        {:ok, %{"url" => "file://" <> url, "dir_info" => info}} <- [JSON.decode(json)] do
      # Of a distribution's name, `-` became `_`.
      [distribution, _version] = String.split(name, "-", parts: 2)
      %{name: distribution, folder: URI.decode(url), editable?: info["editable"] == true}
    end
  end
end
