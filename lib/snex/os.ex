defmodule Snex.Os do
  # Texts of the operating system (variables, paths) as the bytes that it has for them.
  #
  # Erlang turns these bytes into characters, by `:file.native_name_encoding()`: in a VM in Latin-1 (`LANG=C`) every byte is
  # one character, and Elixir's strings then hold each byte that is not ASCII in two. In a VM in UTF-8, bytes that are not
  # UTF-8 become characters too, and nothing tells them from others. Python gets the bytes, so they are what Snex works with.
  @moduledoc false

  @doc """
  The variables that the VM's children get, as bytes.
  """
  @spec env() :: [{name :: binary(), value :: binary()}]
  def env do
    variables = :os.env()

    if certain?(variables),
      do: for({name, value} <- variables, do: {bytes(name), bytes(value)}),
      else: env_of_child() || for({name, value} <- variables, do: {bytes(name), bytes(value)})
  end

  @doc """
  One of the variables, or nil.
  """
  @spec get_env(String.t()) :: binary() | nil
  def get_env(name) do
    with value when is_list(value) <- :os.getenv(characters(name)) || nil do
      if certain?([{[], value}]), do: bytes(value), else: env() |> Map.new() |> Map.fetch!(name)
    end
  end

  # Whether characters say which bytes they were. In UTF-8, those of the upper half of Latin-1 may have been one byte or two.
  defp certain?(variables) do
    latin1?() or
      not Enum.any?(variables, fn {name, value} -> ambiguous?(name) or ambiguous?(value) end)
  end

  defp ambiguous?(text), do: Enum.any?(text, &(&1 in 0x80..0xFF))

  # A child knows. nil when there is no program to ask.
  defp env_of_child do
    with [_ | _] = program <- :os.find_executable(~c"env") do
      port = Port.open({:spawn_executable, program}, [:binary, :exit_status, :hide, args: ["-0"]])

      with {:ok, output} <- collect(port, []) do
        for variable <- :binary.split(output, <<0>>, [:global]),
            [name, value] <- [:binary.split(variable, "=")],
            do: {name, value}
      end
    else
      false -> nil
    end
  end

  defp collect(port, parts) do
    receive do
      {^port, {:data, part}} -> collect(port, [parts, part])
      {^port, {:exit_status, 0}} -> {:ok, IO.iodata_to_binary(parts)}
      {^port, {:exit_status, _}} -> nil
    end
  end

  @doc """
  The path of a program, or nil when there is none. As in a shell, a name with a slash is a path, and any other is looked up
  on `PATH`. A relative path starts from the working directory of the VM.
  """
  @spec find_executable(Path.t()) :: Path.t() | nil
  def find_executable(name) do
    if String.contains?(name, "/") do
      path = Path.expand(name)
      if executable?(path), do: path
    else
      case :os.find_executable(characters(name)) do
        false -> nil
        path -> bytes(path)
      end
    end
  end

  defp executable?(path) do
    case File.stat(path) do
      {:ok, %{type: :regular, mode: mode}} -> Bitwise.band(mode, 0o111) != 0
      _other -> false
    end
  end

  @doc """
  A path below the folder of an application, as `Application.app_dir/2`.
  """
  @spec app_dir(atom(), Path.t()) :: Path.t()
  def app_dir(app, path) do
    case :code.lib_dir(app) do
      {:error, :bad_name} -> raise ArgumentError, "unknown application: #{inspect(app)}"
      folder -> Path.join(bytes(folder), path)
    end
  end

  @doc """
  The bytes of a text that Erlang gives as characters.
  """
  @spec bytes(charlist() | binary()) :: binary()
  def bytes(text) when is_binary(text), do: text
  def bytes(text), do: :unicode.characters_to_binary(text, :unicode, :file.native_name_encoding())

  @doc """
  The characters that Erlang takes for these bytes.
  """
  @spec characters(binary()) :: charlist()
  def characters(bytes) do
    case latin1?() || :unicode.characters_to_list(bytes) do
      characters when is_list(characters) -> characters
      _ -> :binary.bin_to_list(bytes)
    end
  end

  @doc """
  Whether Snex is part of an escript.
  """
  @spec in_escript?() :: boolean()
  def in_escript?, do: not File.dir?(:code.lib_dir(:snex))

  @doc """
  Why that cannot be.
  """
  @spec escript() :: String.t()
  def escript do
    "Snex cannot run in an escript: that is a single file, and native code and Python need files of their own. " <>
      "Make a release instead (`mix release`), or a script with `Mix.install/2`"
  end

  defp latin1?, do: :file.native_name_encoding() == :latin1
end
