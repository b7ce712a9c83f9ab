defmodule Snex.InstallVM do
  @moduledoc """
  Installs a project in another VM, which has an environment of variables of its own.
  """

  # What the machine that runs the tests may have set, and would change what they see.
  @unset %{"CI" => nil, "SNEX_LOCKED" => nil}

  @doc """
  Does `Snex.Project.install/1` with what `Snex.Project.new/3` makes of the arguments in the folder `cd`. Returns the result, and
  what was printed until then.
  """
  def install(module, source, opts, env \\ %{}, cd \\ File.cwd!()) do
    code = """
    #{inspect(module)}
    |> Snex.Project.new(#{inspect(source, limit: :infinity, printable_limit: :infinity)}, #{inspect(opts)})
    |> Snex.Project.install()
    |> then(&IO.puts("result:" <> Base.encode64(:erlang.term_to_binary(&1))))
    """

    {output, 0} =
      System.cmd("elixir", ["-pa", Application.app_dir(:snex, "ebin"), "-e", code],
        cd: cd,
        env: Map.merge(@unset, env),
        stderr_to_stdout: true
      )

    [output, result] = String.split(output, "result:")
    {result |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term(), output}
  end
end
