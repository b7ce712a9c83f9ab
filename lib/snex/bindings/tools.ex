defmodule Snex.Bindings.Tools do
  @moduledoc false
  # Python packages that the generator uses: two that read docstrings, and the annotations of Python's standard library. They are
  # no part of the user's project. uv puts them into a folder beside the projects, once, as they are locked here.

  alias Snex.Project
  alias Snex.Project.Files
  alias Snex.Project.Lock
  alias Snex.Project.Make
  alias Snex.Project.Venv

  # All in pure Python and without dependencies, so that one folder does for all Pythons.
  @locked """
  docstring-parser==0.18.0 \
      --hash=sha256:292510982205c12b1248696f44959db3cdd1740237a968ea1e2e7a900eeb2015 \
      --hash=sha256:b3fcbed555c47d8479be0796ef7e19c2670d428d72e96da63f3a40122860374b
  docstring-to-markdown==0.15 \
      --hash=sha256:27afb3faedba81e34c33521c32bbd258d7fbb79eedf7d29bc4e81080e854aec0 \
      --hash=sha256:e146114d9c50c181b1d25505054a8d0f7a476837f0da2c19f07e06eaed52b73d
  typeshed-client==2.15.0 \
      --hash=sha256:04982c298c9e133977f0a9ec3e66d4ec424a09ec7d4fad63f814eb69dfbbc7fc \
      --hash=sha256:c1546a777054bee2128e27bb50b455400a18f80962a503d53507daece5c3eb45
  """

  @digest @locked |> :erlang.md5() |> Base.encode16(case: :lower) |> binary_part(0, 12)

  @doc """
  The folder with the packages, made if it isn't there yet.
  """
  @spec install(Project.t()) :: {:ok, Path.t()} | {:error, String.t()}
  def install(project) do
    folder = Path.join([project.root, "tools", @digest])

    if File.dir?(folder), do: {:ok, folder}, else: make(project, folder)
  end

  defp make(project, folder) do
    File.mkdir_p!(Path.dirname(folder))

    Lock.with_lock(folder <> ".lock", "the folder #{folder}", fn ->
      # Another VM may have made it meanwhile.
      if File.dir?(folder), do: {:ok, folder}, else: fill(project, folder)
    end)
  end

  # Complete as soon as it has its name.
  defp fill(project, folder) do
    unfinished = folder <> ".new"
    requirements = folder <> ".txt"
    Files.remove!(unfinished)
    File.write!(requirements, @locked)

    args =
      ~w(pip install --quiet --no-deps --require-hashes --only-binary :all:) ++
        [
          "--python",
          Venv.python(Project.venv(project)),
          "--target",
          unfinished,
          "--requirements",
          requirements
        ]

    with :ok <- Make.uv(project, args, Path.dirname(folder)) do
      File.rename!(unfinished, folder)
      {:ok, folder}
    end
  end
end
