defmodule Snex.Mix.NotebookBuildTest do
  # What docs/livebook.md says of native code: the setup cell of a notebook, and where its build is.
  use ExUnit.Case, async: true

  alias Snex.Livebook
  alias Snex.Livebook.Cell
  alias Snex.Markdown
  alias Snex.OtherProject
  alias Snex.Prebuilt

  @moduletag :slow
  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  @root Path.expand("../..", __DIR__)
  @page Path.join(@root, "docs/livebook.md")

  # The two setup cells of the page, which can do without kino_snex. Kino is not everywhere.
  defp setup_cells do
    for {_line, code} <- Markdown.elixir_blocks(@page), code =~ "Mix.install(" do
      code
      |> String.replace("\"/path/to/snex\"", inspect(@root))
      |> String.replace(~r/^ *\{:kino_snex, .*\n/m, "")
    end
  end

  defp evaluate(vm, code), do: Livebook.evaluate(vm, %Cell{id: "setup", code: code, line: 1}, nil)

  test "notebooks share what cargo has built, and the setup cell shows cargo's progress", %{tmp_dir: folder} do
    installs = Path.join(folder, "installs")
    # The folder of Mix's installs may be a link, like that of a user's home.
    File.mkdir_p!(Path.join(folder, "elsewhere"))
    File.ln_s!(Path.join(folder, "elsewhere"), installs)
    # As if another notebook had built the native code before.
    File.ln_s!(OtherProject.target_dir(), Path.join(installs, "snex_native"))

    vm = Livebook.start(folder, [{~c"CARGO_TARGET_DIR", false}])
    [setup, _with_archive] = setup_cells()
    assert %{value: :ok, printed: printed} = evaluate(vm, setup)
    assert printed =~ "Compiling Snex's native code with cargo\n"
    assert printed =~ ~r/^ *Finished `release` profile/m
    # No crate had to be built.
    refute printed =~ ~r/^ *Compiling \w+ v\d/m
  end

  @tag :long
  test "checkouts that share cargo's folder get what their own sources say", %{tmp_dir: folder} do
    files = System.cmd("git", ~w[ls-files -z], cd: @root) |> elem(0) |> String.split("\0", trim: true)

    checkouts =
      for name <- ~w[one other] do
        checkout = Path.join(folder, name)

        for file <- files, File.regular?(Path.join(@root, file)) do
          OtherProject.write!(checkout, file, File.read!(Path.join(@root, file)))
          # Older than anything that is built.
          File.touch!(Path.join(checkout, file), 1_600_000_000)
        end

        version = Path.join(checkout, "native/snex_warden/src/main.rs")
        File.write!(version, ["#[used]\nstatic OF: &[u8] = b\"checkout #{name}\";\n"], [:append])
        File.touch!(version, 1_600_000_000)
        checkout
      end

    for checkout <- checkouts ++ checkouts do
      OtherProject.mix!(checkout, ~w[compile.cargo --force], [
        {"CARGO_TARGET_DIR", Path.join(folder, "target")}
      ])

      warden = File.read!(Path.join(checkout, "_build/dev/lib/snex/priv/native/snex_warden"))

      for name <- ~w[one other],
          do: assert(warden =~ "checkout " <> name == (name == Path.basename(checkout)))
    end
  end

  test "with SNEX_PREBUILT, the setup cell needs no cargo", %{tmp_dir: folder} do
    [_without, setup] = setup_cells()
    native = Application.app_dir(:snex, "priv/native")
    archive = Prebuilt.create!(native, folder, Mix.Project.config()[:version])
    # The page names an archive of this version.
    assert setup =~ String.replace(Path.basename(archive), Prebuilt.triple(), "x86_64-unknown-linux-gnu")
    setup = String.replace(setup, ~r{"/path/to/snex-[^"]*"}, inspect(archive))

    # This one fails.
    File.mkdir_p!(Path.join(folder, "bin"))
    cargo = Path.join(folder, "bin/cargo")
    File.write!(cargo, "#!/bin/sh\nexit 1\n")
    File.chmod!(cargo, 0o755)
    path = Path.dirname(cargo) <> ":" <> System.fetch_env!("PATH")

    vm = Livebook.start(folder, [{~c"PATH", String.to_charlist(path)}])
    assert %{value: :ok, printed: printed} = evaluate(vm, setup)
    refute printed =~ "cargo"
    run = "{:ok, py} = Snex.Interpreter.start_link()\nSnex.pyeval(py, \"return 6 * 7\")"
    assert %{value: {:ok, 42}} = evaluate(vm, run)
  end
end
