defmodule Snex.Project.Private do
  # Folders that only their owner may enter, whatever the umask says.
  @moduledoc false

  @mode 0o700

  @doc """
  Makes such a folder, in one that exists. As `File.mkdir/1`; and an error when somebody else was in it first.
  """
  @spec make(Path.t()) :: :ok | {:error, File.posix()}
  def make(path) do
    with :ok <- File.mkdir(path),
         :ok <- File.chmod(path, @mode),
         # For a moment others could enter. From here on they cannot, not even those who did.
         {:ok, [_ | _]} <- File.ls(path) do
      {:error, :eperm}
    else
      {:ok, []} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  @doc """
  Makes such a folder, and those above it as usual. One that is there becomes such a folder; raises `File.Error` when it is
  another user's.
  """
  @spec make!(Path.t()) :: :ok
  def make!(path) do
    File.mkdir_p!(Path.dirname(path))

    with {:error, :eexist} <- make(path) do
      # Also one of an earlier version. What is no folder shows itself when it is used.
      File.chmod!(path, @mode)
    else
      :ok -> :ok
      {:error, reason} -> raise File.Error, path: path, reason: reason, action: "make folder"
    end
  end
end
