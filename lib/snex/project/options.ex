defmodule Snex.Project.Options do
  @moduledoc false
  # The options of a project: those that `use Snex.Interpreter` takes when a module is compiled, and of these the ones that
  # `Snex.Interpreter.start_link/1` takes at run time.

  alias Snex.Interpreter
  alias Snex.Options

  @names quote(do: [atom() | String.t()])

  @table [
    pyproject_toml: [type: :string, doc: "the text of a `pyproject.toml`"],
    project_path: [
      type: :string,
      spec: quote(do: Path.t()),
      doc: "a folder with a `pyproject.toml`, and a `uv.lock` if there is one"
    ],
    lock: [
      type: :string,
      spec: quote(do: Path.t()),
      doc: """
      with `:pyproject_toml`: the lock file, in the source tree, such as `"locks/numpy.lock"`, relative to the Mix
      project; see "Locks"
      """
    ],
    locked: [
      type: :boolean,
      default: false,
      doc: "with `true`, an outdated lock file is a compile error; see \"Locks\""
    ],
    uv: [type: :string, doc: "the uv command, `\"uv\"` by default"],
    python_preference: [
      type: {:in, [:managed, :system, :only_managed, :only_system]},
      doc: """
      which Python to use. `:managed`, the default, is a Python that uv downloads, and that releases contain. If the
      download fails, a Python of this machine is used, and a warning says what that means for releases; with
      `:only_managed`, it is an error instead. `:system` and `:only_system` mean the same as in uv. Without this option,
      `UV_PYTHON_PREFERENCE` and uv's setting `python-preference` in the project apply, if they are set
      """
    ],
    groups: [
      type: &__MODULE__.names/1,
      default: nil,
      spec: @names,
      doc: "dependency groups to install; by default none, not even `dev`"
    ],
    extras: [type: &__MODULE__.names/1, spec: @names, doc: "extras to install"],
    install_project: [
      type: :boolean,
      default: false,
      doc: """
      with `:project_path`: whether the project itself is installed in addition to its dependencies, so that Python can
      import its package; see "Packages in folders"
      """
    ]
  ]

  @at_run_time [:pyproject_toml, :uv, :python_preference, :groups, :extras]

  @doc """
  The options of a module.
  """
  @spec table() :: Options.table()
  def table do
    # Its folders are looked at when an interpreter starts: they may not be there yet.
    @table ++
      [
        python_path: [
          type: :any,
          spec: quote(do: Interpreter.python_path() | [Interpreter.python_path()]),
          doc: "see `start_link/1`; a relative folder is relative to the Mix project"
        ]
      ]
  end

  @doc """
  The options of a project that is made at run time.
  """
  @spec at_run_time() :: Options.table()
  def at_run_time, do: Keyword.take(@table, @at_run_time)

  @doc false
  @spec names(term()) :: {:ok, [atom() | String.t()]} | {:error, String.t()}
  def names(value) do
    if is_list(value) and Enum.all?(value, &name?/1),
      do: {:ok, value},
      else: Options.refuse(value, "a list of names")
  end

  defp name?(value), do: is_binary(value) or (is_atom(value) and value not in [nil, true, false])
end
