defmodule Snex.ManagedPython do
  @moduledoc """
  A Python that uv downloads and installs, without a network: one of the machine's Pythons, packed as an archive.

  uv takes both the list of Pythons that there are to download and the archive itself from `file:` URLs. Packing takes
  some seconds, once; the archive stays below `_build`.
  """

  import ExUnit.Assertions

  @pack Path.expand("python/pack.py", __DIR__)

  @doc """
  The variables that make uv know this Python, and no other, as one that can be downloaded.
  """
  def env do
    # The tests of one run wait for each other, instead of packing the same twice.
    downloads = :global.trans({__MODULE__, self()}, fn -> pack(candidates(), []) end, [node()])
    %{"UV_PYTHON_DOWNLOADS_JSON_URL" => "file://" <> URI.encode(downloads)}
  end

  # Those that `bin/pythons` has fetched come with a C library of their own, which is not in the archive.
  defp candidates, do: Enum.reject(Snex.Case.pythons(), fn {_name, path} -> path =~ "/_build/pythons/" end)

  # The first that can be packed: PyPy cannot.
  defp pack([], said), do: flunk("no Python here can be packed: #{said}")

  defp pack([{_name, python} | others], said) do
    folder = Path.join(Mix.Project.build_path(), "managed_python")

    case System.cmd(python, [@pack, folder], stderr_to_stdout: true) do
      {downloads, 0} -> String.trim(downloads)
      {output, _} -> pack(others, [said, "\n", output])
    end
  end

  @doc """
  Writes a program `uv` into `dir` that is uv with these variables, for the `:uv` option of a project; returns its path.
  """
  def uv(dir, env \\ env()) do
    exports = for {name, value} <- env, do: "export #{name}='#{value}'\n"
    path = Path.join(dir, "uv")
    File.write!(path, ["#!/bin/sh\n", exports, ~s(exec "#{System.find_executable("uv")}" "$@"\n)])
    File.chmod!(path, 0o755)
    path
  end
end
