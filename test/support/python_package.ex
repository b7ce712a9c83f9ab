defmodule Snex.PythonPackage do
  @moduledoc """
  Python projects, and packages in folders, which uv builds.
  """

  @doc """
  The text of a pyproject.toml with these dependencies; `more` comes behind the table `[project]`.
  """
  def toml(name, dependencies, more \\ "") do
    """
    [project]
    name = "#{name}"
    version = "0.0.0"
    requires-python = ">=3.10"
    dependencies = #{inspect(dependencies)}
    #{more}
    """
  end

  @doc """
  The files of a package that is one module, below `folder`; paths to contents, as `Snex.OtherProject.create!/3` takes them.
  `more` comes into the table `[project]`.
  """
  def files(name, code, folder \\ nil, more \\ "") do
    folder = folder || name

    %{
      "#{folder}/pyproject.toml" => """
      [project]
      name = "#{name}"
      version = "0.1.0"
      requires-python = ">=3.10"
      #{more}
      [build-system]
      requires = ["hatchling"]
      build-backend = "hatchling.build"
      """,
      "#{folder}/src/#{name}/__init__.py" => code
    }
  end
end
