defmodule Snex.Project.Preference do
  # Which Python uv takes for a project: one that it installs below the project's root, or one of the machine.
  #
  # The option `:python_preference` decides. Without it, the user's own word to uv counts: a variable, or
  # `python-preference` in the project's files. Otherwise it is `:managed`.
  #
  # `:managed` asks uv for a managed Python. If uv has none and can't download one, `make_venv/2` takes one of the
  # machine. Which of the two it was is not written down anywhere: the finished environment shows it.
  @moduledoc false

  alias Snex.Project
  alias Snex.Project.Progress
  alias Snex.Project.Stamp
  alias Snex.Project.Venv

  @variables ~w(UV_PYTHON_PREFERENCE UV_MANAGED_PYTHON UV_NO_MANAGED_PYTHON)

  @doc """
  The variables by which uv knows the preference.
  """
  @spec env(Project.t()) :: %{String.t() => String.t() | nil}
  def env(project) do
    cond do
      not managed?(project) -> prefer(project.python_preference)
      of_the_machine?(project) -> of_the_machine()
      true -> prefer(:only_managed)
    end
  end

  @doc """
  Has uv make the virtual environment. `run` runs uv with variables that go before those of `env/1`.
  """
  @spec make_venv(Project.t(), (map() -> :ok | {:error, String.t()})) :: :ok | {:error, String.t()}
  def make_venv(project, run) do
    with {:error, message} <- run.(%{}) do
      # Why the first attempt failed is what the user can do something about.
      if managed?(project) and run.(of_the_machine()) == :ok,
        do: warn(project, message),
        else: {:error, message}
    end
  end

  defp warn(project, message) do
    Progress.puts("[#{project.name}] " <> message)

    text =
      "there is no managed Python for #{project.name}, so its environment uses #{Venv.base_program(Project.venv(project))}. " <>
        "A release will not contain this Python: the machine that it runs on needs the same one at the same path. " <>
        "`python_preference: :system` accepts this, `:only_managed` makes it an error"

    Progress.puts(IO.ANSI.format(["[#{project.name}] ", :yellow, "warning: ", :reset, text]))
  end

  defp managed?(%{python_preference: nil} = project), do: not told?(project)
  defp managed?(project), do: project.python_preference == :managed

  defp told?(project) do
    Enum.any?(@variables, &(System.get_env(&1, "") != "")) or
      Enum.any?(Stamp.settings(project), &(&1 =~ ~r/^\s*python-preference\s*=/m))
  end

  defp of_the_machine?(project) do
    venv = Project.venv(project)
    managed = Path.join(Venv.real_path(project.root), "python")
    Venv.usable?(venv) and not String.starts_with?(Venv.base_program(venv), managed <> "/")
  end

  defp of_the_machine, do: Map.put(prefer(:system), "UV_PYTHON_DOWNLOADS", "never")

  defp prefer(nil), do: %{}

  defp prefer(name) do
    # The other variables say the same in other words; uv refuses them together with the first.
    @variables
    |> Map.new(&{&1, nil})
    |> Map.put("UV_PYTHON_PREFERENCE", name |> to_string() |> String.replace("_", "-"))
  end
end
