defmodule Snex.Project.Bytecode do
  # Compiled Python in a release. Python compiles what it has no bytecode for at each start, and keeps it only if it may
  # write beside the source, which a release's user often may not. Nor does it use bytecode that was made for a source of another
  # time, and what `mix release` copies is new; so that of our package says that nobody need look at the source.
  @moduledoc false

  alias Snex.Project.Files

  @doc """
  Removes compiled Python below a folder that is not of the implementation and version of `tag`, such as `cpython-313`.
  """
  @spec prune(Path.t(), String.t()) :: :ok
  def prune(folder, tag) do
    for cache <- Files.walk(folder), Path.basename(cache) == "__pycache__" do
      for name <- Files.names(cache),
          not String.contains?(name, ".#{tag}."),
          do: File.rm!(Path.join(cache, name))

      # Fails, as it should, when there is something left.
      _ = File.rmdir(cache)
    end

    :ok
  end

  @doc """
  Compiles what is below a folder, for the Python `python`, which afterwards neither compiles nor looks for changes. The
  bytecode names files by their way from the folder; Python knows where it has found it.
  """
  @spec compile!(Path.t(), Path.t()) :: :ok
  def compile!(folder, python) do
    # Isolated, and without `site`: nothing but the standard library has a say, not even a `.pth` file that this locale cannot
    # read.
    compileall = ~w(-I -S -m compileall -q -f --invalidation-mode unchecked-hash -s) ++ [folder, folder]

    case System.cmd(python, compileall, stderr_to_stdout: true) do
      {_output, 0} -> :ok
      {output, status} -> raise "#{python} does not compile #{folder} (status #{status}): #{output}"
    end
  end
end
