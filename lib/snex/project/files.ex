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
