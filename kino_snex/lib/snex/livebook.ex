defmodule Snex.Livebook do
  @moduledoc ~S'''
  Python in a Livebook notebook.

      import Snex.Livebook

      Snex.Livebook.start(pyproject_toml: """
      [project]
      name = "notebook"
      version = "0.0.0"
      requires-python = ">=3.10"
      dependencies = ["pandas"]
      """)

  In a later cell, `~PY` runs Python:

      rows = [%{"city" => "Oslo", "t" => 4}, %{"city" => "Rome", "t" => 17}]

      ~PY"""
      import pandas as pd
      frame = pd.DataFrame(rows)
      frame
      """

  The code reads the Elixir variables that it names, the names that it assigns are Elixir variables afterwards, and the value of
  its final expression is that of the sigil. Without one the value is `Kino.nothing()`, so that Livebook shows none. A data frame, a
  figure or an image stays in Python, as a `Snex.Object`, and is shown as such. See `Snex.Cell` for what happens to other values, to open matplotlib figures, and for `display(x)`.

  Each `~PY` begins with a copy of the names that the one before it has left. So a cell that is evaluated again begins with the names that it had
  the first time, and sections that branch do not see each other's names. Objects are shared between these copies.

  `on/2` runs a `~PY` in an interpreter with another name.

  Livebook's Stop button interrupts Python.
  '''

  alias Snex.Cell
  alias Snex.Code
  alias Snex.Env
  alias Snex.Interpreter

  defmodule PythonError do
    @moduledoc "An exception in the code of a `~PY`. The message is Python's traceback; `:error` has the `Snex.Error`."
    defexception [:message, :error]
  end

  @name Snex.Livebook.Interpreter
  @reserved ~w[after and catch do else end false fn in nil not or rescue true when]

  @doc """
  Starts the notebook's interpreter and returns its pid. `opts` are those of `Snex.Interpreter.start_link/1`.

  Raises `Snex.Error` if that fails. When the cell is evaluated again, the interpreter is started anew. The installation of packages is shown below the cell; Livebook's Stop
  button ends it.
  """
  @spec start(keyword()) :: pid()
  def start(opts \\ []) do
    opts = Keyword.put(opts, :name, @name)
    if pid = Process.whereis(@name), do: Kino.terminate_child(pid)
    install(opts)
    started!(Kino.start_child({Interpreter, opts}))
  end

  defp started!({:ok, pid}), do: pid
  defp started!({:error, %Snex.Error{} = error}), do: raise(error)

  # In this process, so that its output and its end belong to the cell, and so that the supervisor of all Kinos does not wait for packages.
  defp install(opts) do
    if opts[:pyproject_toml] || opts[:project_path] do
      opts
      |> Keyword.drop([:name, :init_script])
      |> Interpreter.start_link()
      |> started!()
      |> Interpreter.stop()
    end
  end

  @doc """
  Runs Python code, as the documentation of this module says. An exception in it raises `Snex.Livebook.PythonError`.
  """
  defmacro sigil_PY({:<<>>, meta, [source]}, _modifiers) when is_binary(source),
    do: cell(@name, meta, source, __CALLER__)

  @doc """
  Runs a `~PY` in another interpreter than the notebook's, with the name `interpreter`.

      on MyApp.Python, ~PY"1 + 1"

  The name has to be there as it is, and not in a variable: Python reads the code when the cell is compiled. The cells of each interpreter
  continue those before them in the same interpreter.
  """
  defmacro on(interpreter, {:sigil_PY, _, [{:<<>>, meta, [source]}, _modifiers]}) when is_binary(source) do
    case Macro.expand(interpreter, __CALLER__) do
      name when is_atom(name) and name not in [nil, true, false] ->
        cell(name, meta, source, __CALLER__)

      other ->
        raise ArgumentError,
              "expected the name of an interpreter, such as MyApp.Python, and got #{Macro.to_string(other)}"
    end
  end

  defp cell(name, meta, source, caller) do
    heredoc = if Keyword.has_key?(meta, :indentation), do: 1, else: 0
    line = Keyword.get(meta, :line, caller.line) + heredoc
    code = %Code{src: source, file: caller.file, line: line}
    %{reads: reads, binds: binds, has_value: has_value} = names!(name, code)

    vars =
      for {name, nil} <- Macro.Env.vars(caller),
          Atom.to_string(name) in reads,
          do: {Atom.to_string(name), Macro.var(name, nil)}

    assignments =
      for name <- binds, variable?(name) do
        # A name of the notebook's own code, as in any other source that is compiled.
        variable = Macro.var(String.to_atom(name), nil)
        quote generated: true, do: unquote(variable) = Map.get(bound, unquote(name))
      end

    quote generated: true do
      {value, bound} =
        Snex.Livebook.run(
          unquote(name),
          unquote(Macro.escape(code)),
          %{unquote_splicing(vars)},
          unquote(has_value)
        )

      _ = bound
      unquote_splicing(assignments)
      value
    end
  end

  defp names!(name, code) do
    case Cell.names(interpreter!(name), code, timeout: 60_000) do
      {:ok, names} -> names
      {:error, error} -> raise python_error(error)
    end
  end

  defp variable?(name), do: name =~ ~r/\A[a-z][A-Za-z0-9_]*\z/ and name not in @reserved

  @doc false
  @spec run(atom(), Code.t(), map(), boolean()) :: {term(), map()}
  def run(name, code, vars, has_value) do
    env = next_env(name, interpreter!(name))

    case Cell.run(env, code, vars, timeout: :infinity, display: &display/2) do
      {:ok, cell} ->
        Process.put({__MODULE__, name}, env)
        for figure <- cell.figures, do: figure |> Kino.Image.new(:png) |> Kino.render()
        # Code without a final expression may still return something.
        value = if cell.value == nil and not has_value, do: Kino.nothing(), else: cell.value
        {value, cell.bound}

      {:error, error} ->
        # Elixir's stack says nothing that Python's does not.
        reraise python_error(error), []
    end
  end

  # Livebook restores the process dictionary that the cell before has left, also in a section that branches.
  defp next_env(name, interpreter) do
    env = Process.get({__MODULE__, name})

    if env && Env.interpreter(env) == interpreter,
      do: Snex.make_env!(from: env),
      else: Snex.make_env!(interpreter)
  end

  defp display(display, object), do: display |> KinoSnex.Output.new(object) |> Kino.render()

  defp interpreter!(name), do: Process.whereis(name) || raise(missing(name))

  defp missing(@name),
    do: "no interpreter is running: start one in an earlier cell, with Snex.Livebook.start()"

  defp missing(name),
    do:
      "no interpreter has the name #{inspect(name)}: start one in an earlier cell, " <>
        "with Kino.start_child!({Snex.Interpreter, name: #{inspect(name)}})"

  defp python_error(error) do
    message =
      if error.traceback, do: IO.iodata_to_binary(["\n" | error.traceback]), else: Exception.message(error)

    %PythonError{message: message, error: error}
  end
end
