defmodule Snex.Project.Module do
  # From modules that `use Snex.Interpreter` to their projects. Compiled files are read, no module is loaded.
  @moduledoc false

  alias Snex.Project

  @doc """
  The projects of the modules in a folder of compiled modules.
  """
  @spec in_ebin(Path.t()) :: [Project.t()]
  def in_ebin(ebin) do
    for beam <- Path.wildcard(Path.join(ebin, "*.beam")), project <- List.wrap(in_beam(beam)), do: project
  end

  @doc """
  The project of the module that a user names on a command line, such as `MyApp.Numpy`.
  """
  @spec named(String.t()) :: {:ok, Project.t()} | {:error, String.t()}
  def named(name) do
    module = Module.concat([name])

    with [_ | _] = beam <- :code.which(module),
         %Project{} = project <- in_beam(to_string(beam)) do
      {:ok, project}
    else
      nil -> {:error, "#{name} does not `use Snex.Interpreter` with a project"}
      _not_found -> {:error, "there is no module #{name}"}
    end
  end

  @doc """
  The project of the module in a compiled file, if it is there and has one.
  """
  @spec in_beam(Path.t()) :: Project.t() | nil
  def in_beam(beam) do
    with {:ok, {_module, [attributes: attributes]}} <- :beam_lib.chunks(to_charlist(beam), [:attributes]),
         [%Project{} = project] <- attributes[:snex_project],
         do: project,
         else: (_ -> nil)
  end
end
