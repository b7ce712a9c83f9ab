defmodule Snex.Project.Files do
  # What is in folders. No path is ever a pattern here: folders may be called anything.
  @moduledoc false

  alias Snex.Os

  @doc """
  The names in a folder, sorted; none when there is no such folder.
  """
  @spec names(Path.t()) :: [String.t()]
  def names(folder) do
    case :file.list_dir_all(folder) do
      {:ok, names} -> names |> Enum.map(&Os.bytes/1) |> Enum.sort()
      {:error, _} -> []
    end
  end

  @doc """
  Where a link leads; nil for what is no link.
  """
  @spec link(Path.t()) :: Path.t() | nil
  def link(path) do
    with {:ok, target} <- :file.read_link_all(path), do: Os.bytes(target), else: (_ -> nil)
  end

  @doc """
  Copies a file, link or folder with all that is in it to a path where nothing is. Links stay links, and files keep their
  times, by which Python knows whether bytecode belongs to its source.
  """
  @spec copy!(Path.t(), Path.t()) :: :ok
  def copy!(from, to) do
    case File.lstat!(from, time: :posix) do
      %{type: :directory} ->
        File.mkdir!(to)
        for name <- names(from), do: copy!(Path.join(from, name), Path.join(to, name))
        :ok

      %{type: :symlink} ->
        File.ln_s!(link(from), to)

      %{mtime: time} ->
        File.cp!(from, to)
        File.touch!(to, time)
    end
  end

  @doc """
  Removes whatever is at a path. `File.rm_rf!/1` does not in a VM in Latin-1, where a name in it is not ASCII.
  """
  @spec remove!(Path.t()) :: :ok
  def remove!(path) do
    # What a link leads to stays.
    below = if link(path), do: [], else: walk(path)
    Enum.each(Enum.reverse([path | below]), &remove_one!/1)
  end

  defp remove_one!(path) do
    case File.lstat(path) do
      {:ok, %{type: :directory}} -> File.rmdir!(path)
      {:ok, _} -> File.rm!(path)
      {:error, reason} when reason in [:enoent, :enotdir] -> :ok
      {:error, reason} -> raise File.Error, path: path, reason: reason, action: "remove"
    end
  end

  @doc """
  All paths below a folder, each folder before what is in it. Links are not followed.
  """
  @spec walk(Path.t()) :: [Path.t()]
  def walk(folder) do
    Enum.flat_map(names(folder), fn name ->
      path = Path.join(folder, name)

      case File.lstat(path) do
        {:ok, %{type: :directory}} -> [path | walk(path)]
        _ -> [path]
      end
    end)
  end
end
