defmodule Bench.Bindings do
  @moduledoc """
  Python modules as Elixir modules: how long it takes to make them, and what a call costs.
  """

  alias Bench.{Row, Stats}
  alias Snex.Bindings.{Introspection, Options, Plan, Source}

  # Only asked what is there: the interpreter of the other rows calls the functions.
  @toml """
  [project]
  name = "bindings"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy>=2"]
  """

  def rows,
    do: [
      bindings_call: &call/1,
      bindings_statistics: &statistics/1,
      bindings_numpy: &numpy/1,
      bindings_numpy_compiled: &numpy_compiled/1
    ]

  # One call of each in turn, so that both meet whatever else the machine does.
  defp call(context) do
    [{module, _} | _] = compile(bodies(project(), "math", only: ["sqrt"]), "math")
    by_name = fn -> {:ok, 4.0} = Snex.call(context.interpreter, {"math", "sqrt"}, [16.0]) end
    Process.register(context.interpreter, module)
    generated = fn -> {:ok, 4.0} = module.sqrt(16.0) end
    [floor, value] = Stats.in_turns(context.turns * 200, 1, [by_name, generated])
    Process.unregister(module)

    %Row{
      name: "bindings_call",
      what: "p50 of a generated function; floor: the same with Snex.call",
      floor: floor,
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 1.05
    }
  end

  defp statistics(context), do: made(context, "statistics", 1)
  defp numpy(context), do: made(context, "numpy", 10)

  # Beyond what Python needs to import the module.
  defp made(context, python, seconds) do
    project = project()
    path = Snex.Project.python!(project)
    import = fn -> {_, 0} = System.cmd(path, ["-c", "import #{python}"]) end
    make = fn -> bodies(project, python, []) end
    runs = if context.quick, do: 1, else: 3
    floor = Stats.median(Stats.times(runs, import, 1))

    %Row{
      name: "bindings_#{python}",
      what: "source of bindings of #{python}, beyond Python's own import; floor: #{seconds} s",
      floor: [seconds * 1_000_000_000],
      value: for(time <- Stats.times(runs, make, 1), do: max(time - floor, 0)),
      unit: :ns,
      goal: :at_most,
      target: 1.0
    }
  end

  defp numpy_compiled(context) do
    bodies = bodies(project(), "numpy", [])

    value =
      if context.quick,
        do: [Stats.time(fn -> compile(Enum.take(bodies, 1), "quick") end)],
        else: Stats.times(3, fn -> compile(bodies, "numpy") end, 0)

    %Row{
      name: "bindings_numpy_compiled",
      what: "compilation of all bindings of numpy's top level; floor: 20 s",
      floor: [20_000_000_000],
      value: value,
      unit: :ns,
      goal: :at_most,
      target: 1.0
    }
  end

  defp bodies(project, python, options) do
    options = Options.check!([module: python, interpreter: __MODULE__] ++ options)
    {:ok, answer} = Introspection.run(project, options)
    {:ok, plan} = Plan.new(Module.concat(__MODULE__, Macro.camelize(python)), answer, [])
    # What is called: a name that the row gives to the interpreter.
    Source.bodies(plan, hd(plan).module)
  end

  # As `use Snex.Bindings` does it in a Mix project, where modules are compiled beside each other.
  defp compile(bodies, name) do
    Code.put_compiler_option(:ignore_module_conflict, true)

    bodies
    |> Task.async_stream(
      fn {module, body} ->
        {:module, _, beam, _} = Module.create(module, Code.string_to_quoted!(body), file: name, line: 1)
        {module, beam}
      end,
      timeout: :infinity
    )
    |> Enum.map(&elem(&1, 1))
  after
    Code.put_compiler_option(:ignore_module_conflict, false)
  end

  defp project do
    root = Path.join(System.tmp_dir!(), "snex-bench-bindings")
    project = Snex.Project.new(__MODULE__, {:toml, @toml}, root: root, python_preference: :system)
    :ok = Snex.Project.install(project)
    project
  end
end
