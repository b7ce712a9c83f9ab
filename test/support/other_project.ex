defmodule Snex.OtherProject do
  @moduledoc """
  A Mix project beside this one, as a user has it: made in a folder, built and run by Mix as a program of its own.
  """

  import ExUnit.Assertions

  @root Path.expand("../..", __DIR__)

  @doc """
  Makes a project `app` with Snex as a dependency in `folder`. `files` maps paths to contents; `mix` is put into the
  keyword list of `project/0`.
  """
  def create!(folder, files, mix \\ "") do
    write!(folder, "mix.exs", """
    defmodule App.MixProject do
      use Mix.Project

      def project do
        [app: :app, version: "0.1.0", deps: [{:snex, path: #{inspect(@root)}}]#{mix}]
      end

      def application, do: [extra_applications: [:logger]]
    end
    """)

    for {path, content} <- files, do: write!(folder, path, content)
    folder
  end

  @doc """
  Writes a file of the project.
  """
  def write!(folder, path, content) do
    path = Path.join(folder, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end

  @doc """
  Runs `mix` in the project, with none of this one's settings but the folder where cargo builds. Returns what it said.
  """
  def mix!(folder, args, env \\ []) do
    {output, status} = mix(folder, args, env)
    assert status == 0, output
    output
  end

  @doc """
  One target folder for all projects: what cargo has built for this one it need not build again.
  """
  def target_dir, do: System.get_env("CARGO_TARGET_DIR") || Path.join(@root, "_build/snex_native")

  @doc """
  As `mix!/3`, with the exit status, whatever it is.
  """
  def mix(folder, args, env \\ []) do
    System.cmd("mix", args, cd: folder, env: variables(env), stderr_to_stdout: true)
  end

  @doc """
  Starts `mix` in the project, as a port that sends the lines that it says, and its exit status.
  """
  def start(folder, args, env \\ []) do
    env =
      for {name, value} <- variables(env),
          do: {to_charlist(name), if(value, do: to_charlist(value), else: false)}

    Port.open({:spawn_executable, System.find_executable("mix")}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      line: 100_000,
      args: args,
      cd: folder,
      env: env
    ])
  end

  defp variables(env) do
    unset = for name <- ~w(MIX_ENV ERL_LIBS MIX_BUILD_PATH CI SNEX_LOCKED), do: {name, nil}
    unset ++ [{"CARGO_TARGET_DIR", target_dir()} | env]
  end
end
