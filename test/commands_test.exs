defmodule Snex.CommandsTest do
  # The programs in bin/.
  use ExUnit.Case, async: true

  @bin Path.expand("../bin", __DIR__)
  @commands @bin |> File.ls!() |> Enum.reject(&(&1 == "env.sh")) |> Enum.sort()

  @moduletag :tmp_dir

  # Every program that builds or installs something, as one that only leaves a note.
  setup %{tmp_dir: folder} do
    for name <- ~w(mix elixir cargo uv apt-get brew sudo curl) do
      path = Path.join(folder, name)
      File.write!(path, "#!/bin/sh\necho #{name} >>'#{folder}/started'\nexit 1\n")
      File.chmod!(path, 0o755)
    end

    {:ok, env: [{"PATH", "#{folder}:#{System.get_env("PATH")}"}, {"HOME", folder}]}
  end

  for command <- @commands, argument <- ["--help", "-h"] do
    test "#{command} #{argument} prints the comment at the program's head, and does nothing", context do
      path = Path.join(@bin, unquote(command))

      for arguments <- [[unquote(argument)], ["anything", unquote(argument)]] do
        # From another folder, too.
        assert {help, 0} =
                 System.cmd(path, arguments, env: context.env, cd: context.tmp_dir, stderr_to_stdout: true)

        assert help =~ "\n  bin/#{unquote(command)}"
        ["#!" <> _ | lines] = path |> File.read!() |> String.split("\n")
        head = Enum.take_while(lines, &String.starts_with?(&1, "#"))
        assert help == Enum.map_join(head, &(String.replace(&1, ~r/^# ?/, "") <> "\n"))
      end

      refute File.exists?(Path.join(context.tmp_dir, "started"))
    end
  end

  test "a shell that sources bin/env.sh for itself goes on", %{env: env} do
    script = "set -- --help; . #{@bin}/env.sh; echo on"
    assert {"on\n", 0} = System.cmd("bash", ["-c", script], env: env)
  end
end
