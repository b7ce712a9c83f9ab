defmodule Snex.ReadmeTest do
  use Snex.Case

  alias Snex.Markdown

  @readme Path.expand("../README.md", __DIR__)
  @moduletag timeout: 600_000

  # Blocks that begin with the name of a file belong into that file.
  defp blocks(file) do
    Enum.filter(Markdown.elixir_blocks(@readme), fn {_line, code} ->
      case Regex.run(~r/\A# (\S+\.exs)\n/, code) do
        [_, ^file] -> true
        nil -> file == nil
        _ -> false
      end
    end)
  end

  # A folder beside a link to this checkout, as the README has it.
  defp beside_checkout(name) do
    folder = Path.join(System.tmp_dir!(), "snex-readme-#{System.unique_integer([:positive])}")
    project = Path.join(folder, name)
    File.mkdir_p!(project)
    File.ln_s!(Path.expand("..", __DIR__), Path.join(folder, "snex"))
    on_exit(fn -> File.rm_rf!(folder) end)
    project
  end

  # Another project's mix, with none of this one's settings.
  defp run!(command, args, folder) do
    env = [{"MIX_ENV", nil}, {"ERL_LIBS", nil}, {"MIX_INSTALL_DIR", Path.join(folder, "installs")}]
    {output, status} = System.cmd(command, args, cd: folder, env: env, stderr_to_stdout: true)
    assert status == 0, output
    output
  end

  test "what it shows in a minute works" do
    Process.flag(:trap_exit, true)
    bindings = Markdown.evaluate(blocks(nil), @readme)
    assert %Snex.Env{} = bindings[:env]
    Supervisor.stop(bindings[:_pid] || Process.whereis(MyApp.Numpy) |> parent())
  end

  defp parent(pid) do
    {:dictionary, dictionary} = Process.info(pid, :dictionary)
    hd(dictionary[:"$ancestors"])
  end

  test "a Mix project beside the checkout takes Snex as it says" do
    [{_line, deps}] = blocks("mix.exs")
    project = beside_checkout("app")

    File.write!(Path.join(project, "mix.exs"), """
    defmodule App.MixProject do
      use Mix.Project
      def project, do: [app: :app, version: "0.1.0", deps: deps()]
      #{deps}
    end
    """)

    code = ~S"""
    {:ok, interpreter} = Snex.Interpreter.start_link()
    IO.inspect(Snex.pyeval(interpreter, "return 6 * 7"))
    """

    run!("mix", ["deps.get"], project)
    assert run!("mix", ["run", "-e", code], project) =~ "{:ok, 42}"
    # A second time, nothing is built again.
    refute run!("mix", ["run", "-e", code], project) =~ "ompiling"
  end

  test "a script installs Snex as it says" do
    [{_line, script}] = blocks("script.exs")
    project = beside_checkout("scripts")
    File.write!(Path.join(project, "script.exs"), script <> "\nIO.puts(\"it worked\")\n")
    assert run!("elixir", ["script.exs"], project) =~ "it worked"

    # A second time, also where Mix cannot install Hex.
    again = String.replace(script, "}])", "}], force: true)")
    assert again =~ "force: true"
    File.write!(Path.join(project, "script.exs"), again <> "\nIO.puts(\"it worked\")\n")
    assert run!("elixir", ["script.exs"], project) =~ "it worked"
  end
end
