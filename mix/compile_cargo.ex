defmodule Mix.Tasks.Compile.Cargo do
  @moduledoc """
  Builds what Snex has besides Elixir: the NIF and the warden (with cargo), and a copy of the Python package.

  It goes to the application's own `priv` folder below `_build`, where releases pick it up:

      priv/native/snex_nif.so     loaded by `Snex.Native`
      priv/native/snex_warden     started by the NIF, once for each Python
      priv/native/snex_etf.so     an extension of CPython, the fast encoder
      priv/python/snex/           the Python package, with the extension in it

  Cargo runs only when a Rust source changed since the last successful build, the copy is renewed only when a Python
  source changed. Cargo's target folder lies beside the folders of the environments (`_build/snex_native`), so that
  `dev`, `test` and `prod` share one. All scripts and notebooks that use `Mix.install` share one as well (`snex_native` among
  Mix's installs), so that only the first of them takes minutes. `CARGO_TARGET_DIR` moves it elsewhere.

  In a published package, whose file `checksum` names an archive for this kind of machine, the native code is taken from that
  archive instead (see `Snex.Prebuilt.Checksums` and `Snex.Prebuilt.Download`); where the archive cannot be had, cargo
  builds. `SNEX_PREBUILT` names an archive that `mix snex.prebuild` has made and that must be used. With `SNEX_BUILD=true` cargo always builds.

  The task lives outside `lib` because it has to run before anything in `lib` is compiled.
  """

  use Mix.Task.Compiler

  @oldest_rust "1.91.0"
  @crates ~w(snex_core snex_etf snex_nif snex_warden)

  # What cargo calls a thing, and what it is called in priv/native. The name of the NIF ends in .so on macOS too:
  # :erlang.load_nif/2 appends that everywhere but on Windows.
  @installed %{"snex_etf" => "snex_etf.so", "snex_nif" => "snex_nif.so", "snex_warden" => "snex_warden"}

  # The extension goes into the Python package too, under the name by which every CPython of its sort finds it.
  @extension "_etf/_native.abi3.so"

  # Settings that change what cargo makes of the same sources.
  @cargo_settings ~w(CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS RUSTFLAGS RUSTUP_TOOLCHAIN)

  @impl true
  def run(argv) do
    old = read_manifest()
    force? = "--force" in argv

    with {:ok, rust, diagnostics} <- build_native(old, force?) do
      python = copy_python(old, force?)
      new = %{rust: rust, python: python, diagnostics: diagnostics}

      if new == old do
        {:noop, diagnostics}
      else
        write_manifest(new)
        {:ok, diagnostics}
      end
    end
  end

  @impl true
  def manifests, do: [manifest()]

  @impl true
  def diagnostics, do: read_manifest().diagnostics

  @impl true
  def clean do
    File.rm_rf!(native_dir())
    File.rm_rf!(python_dir())
    File.rm_rf!(manifest())
    # A target folder that the user chose, or that all scripts share, holds what others need.
    if System.get_env("CARGO_TARGET_DIR") in [nil, ""] and installs_dir() == nil,
      do: File.rm_rf!(target_dir())

    :ok
  end

  ## The native code

  defp build_native(old, force?) do
    case {build?(), System.get_env("SNEX_PREBUILT", "")} do
      {true, _archive} -> build_with_cargo(old, force?, nil)
      {false, ""} -> take_published(old, force?)
      {false, archive} -> take_prebuilt(Path.expand(archive), old, force?)
    end
  end

  defp build? do
    case System.get_env("SNEX_BUILD", "") do
      on when on in ["1", "true"] -> true
      off when off in ["", "0", "false"] -> false
      other -> Mix.raise("SNEX_BUILD is #{inspect(other)}, and should be true or false")
    end
  end

  defp take_prebuilt(archive, old, force?) do
    stamp = {:prebuilt, File.regular?(archive) and Snex.Prebuilt.sha256(archive)}

    if current?(stamp, old, force?) do
      {:ok, stamp, []}
    else
      case Snex.Prebuilt.install(archive, native_dir(), version()) do
        :ok -> {:ok, stamp, []}
        {:error, message} -> Mix.raise("SNEX_PREBUILT cannot be used: " <> message)
      end
    end
  end

  # What the package says of archives. Cargo's build of the same sources stays where it is: the network is not asked again and
  # again where it has nothing to give.
  defp take_published(old, force?) do
    name = Snex.Prebuilt.name(version())

    cond do
      current?(cargo_stamp(), old, force?) ->
        build_with_cargo(old, force?, nil)

      System.get_env("CARGO_BUILD_TARGET", "") != "" ->
        # For another machine, which cargo knows and this task does not.
        build_with_cargo(old, force?, nil)

      true ->
        case Snex.Prebuilt.Checksums.find(in_root("checksum"), name, version()) do
          {:ok, url, sum} -> take_archive(url, name, sum, old, force?)
          :none -> build_with_cargo(old, force?, nil)
          :unlisted -> build_with_cargo(old, force?, "there is no #{name} for this kind of machine")
          {:error, message} -> Mix.raise(message)
        end
    end
  end

  defp take_archive(url, name, sum, old, force?) do
    stamp = {:prebuilt, sum}

    if current?(stamp, old, force?) do
      {:ok, stamp, []}
    else
      with {:ok, archive} <- Snex.Prebuilt.Download.fetch(url, name, sum),
           :ok <- Snex.Prebuilt.install(archive, native_dir(), version(), sha256: sum) do
        {:ok, stamp, []}
      else
        {:error, {:wrong, message}} ->
          Mix.raise(
            message <>
              ". The download may have been cut short: try again. With SNEX_BUILD=true, cargo builds the native code"
          )

        {:error, {:unavailable, message}} ->
          build_with_cargo(old, force?, message)

        # As it was published, and of no use here: an older C library.
        {:error, message} ->
          build_with_cargo(old, force?, message)
      end
    end
  end

  defp current?(stamp, old, force?) do
    not force? and stamp == old.rust and Enum.all?(installed_paths(), &File.exists?/1)
  end

  # `why_not_prebuilt` is a sentence, or nil where nobody would expect an archive.
  defp build_with_cargo(old, force?, why_not_prebuilt) do
    stamp = cargo_stamp()

    if current?(stamp, old, force?) do
      {:ok, stamp, old.diagnostics}
    else
      case cargo_build(stamp, why_not_prebuilt) do
        {:ok, artifacts, diagnostics} ->
          Enum.each(artifacts, &install/1)
          {:ok, stamp, diagnostics}

        {:error, diagnostics} ->
          {:error, diagnostics}
      end
    end
  end

  defp cargo_stamp, do: stamp(rust_sources(), Enum.map(@cargo_settings, &System.get_env/1))

  defp rust_sources do
    Enum.map(
      ~w(Cargo.toml Cargo.lock rust-toolchain rust-toolchain.toml .cargo/config.toml),
      &in_root/1
    ) ++
      for crate <- @crates,
          path <- walk(in_root("native/#{crate}")),
          Path.extname(path) in [".rs", ".toml"],
          do: path
  end

  defp cargo_build(stamp, why_not_prebuilt) do
    if why_not_prebuilt, do: Mix.shell().info("Snex's native code is built here: #{why_not_prebuilt}")
    cargo = find_cargo!()
    Mix.shell().info("Compiling Snex's native code with cargo")
    look_for_linker()

    # The format tells where cargo put what it made, and the compiler's messages come with their text rendered as it would
    # have been shown. What else cargo says is shown by this VM: in a notebook nobody sees the VM's own standard error.
    format = if IO.ANSI.enabled?(), do: "json-diagnostic-rendered-ansi", else: "json"

    args =
      ~w(build --release --locked -p snex_etf -p snex_nif -p snex_warden --message-format #{format} --target-dir) ++
        [target_dir()]

    port =
      Port.open({:spawn_executable, cargo}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, 65_536},
        args: args,
        cd: root(),
        # In a folder that several checkouts share, cargo takes one's sources for another's: it compares only names and times.
        # The crates name this variable, so that cargo builds them anew when it differs.
        env: [{~c"SNEX_SOURCES", String.to_charlist(Base.encode16(stamp))}]
      ])

    {status, messages} = receive_messages(port, [], [])

    diagnostics =
      for %{"reason" => "compiler-message"} = message <- messages, do: diagnostic(message)

    if status == 0 do
      {:ok, artifacts(messages), diagnostics}
    else
      Mix.shell().error(
        "cargo ended with status #{status}; this was run in #{root()}:\n  cargo #{Enum.join(args, " ")}"
      )

      {:error, diagnostics}
    end
  end

  defp receive_messages(port, line, messages) do
    receive do
      {^port, {:data, {:noeol, part}}} ->
        receive_messages(port, [line, part], messages)

      {^port, {:data, {:eol, part}}} ->
        receive_messages(port, [], show_message(IO.iodata_to_binary([line, part])) ++ messages)

      {^port, {:exit_status, status}} ->
        {status, Enum.reverse(messages)}
    end
  end

  defp show_message(line) do
    case JSON.decode(line) do
      {:ok, %{"reason" => "compiler-message", "message" => %{"rendered" => text}} = message} ->
        IO.write(:stderr, text)
        [message]

      {:ok, %{"reason" => "compiler-artifact"} = message} ->
        [message]

      {:ok, _other} ->
        []

      # Not one of cargo's messages: its progress, an error of its own, or what a build script's child printed.
      {:error, _reason} ->
        IO.puts(:stderr, String.replace_invalid(line))
        []
    end
  end

  defp diagnostic(%{"message" => message}) do
    span = Enum.find(message["spans"], & &1["is_primary"])

    %Mix.Task.Compiler.Diagnostic{
      compiler_name: "cargo",
      file: span && in_root(span["file_name"]),
      position: if(span, do: {span["line_start"], span["column_start"]}, else: 0),
      message: message["message"],
      severity: if(message["level"] == "error", do: :error, else: :warning),
      details: message["code"]
    }
  end

  # The paths of the NIF and of the warden. A cdylib that is built for others' use as well has several files.
  defp artifacts(messages) do
    made =
      for %{"reason" => "compiler-artifact", "target" => %{"name" => name}} = message <- messages,
          Map.has_key?(@installed, name),
          path =
            message["executable"] ||
              Enum.find(message["filenames"], &(Path.extname(&1) in ~w(.so .dylib))),
          into: %{},
          do: {name, path}

    for {name, _} <- @installed, not is_map_key(made, name) do
      Mix.raise("cargo succeeded, but did not say where it put #{name}")
    end

    made
  end

  # A running VM may have the old file mapped, or be about to execute it: that inode must stay as it is. A rename puts
  # the new one in its place, and nobody ever sees half a file.
  defp install({name, built}) do
    target = Path.join(native_dir(), @installed[name])
    File.mkdir_p!(native_dir())
    unfinished = "#{target}.#{System.pid()}"
    File.cp!(built, unfinished)
    File.rename!(unfinished, target)
  end

  defp find_cargo! do
    cargo =
      System.find_executable("cargo") || Mix.raise(install_rust("there is no cargo on PATH"))

    # A cargo that is rustup's proxy reads the folder's toolchain file.
    {output, status} = System.cmd(cargo, ["--version"], cd: root(), stderr_to_stdout: true)

    with 0 <- status,
         [_, version] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/m, output) do
      if Version.compare(version, @oldest_rust) == :lt do
        Mix.raise(install_rust("the cargo on PATH (#{cargo}) is #{version}"))
      end

      cargo
    else
      _ -> Mix.raise(install_rust("`#{cargo} --version` says:\n\n#{output}\n"))
    end
  end

  defp install_rust(what_is_wrong) do
    """
    Snex builds its native code with Rust 1.91 or later. Install it as https://rustup.rs says, or run \
    `rustup update stable` where an older one is installed: #{what_is_wrong}
    Without Rust, set SNEX_PREBUILT to an archive that `MIX_ENV=prod mix snex.prebuild` has made on a machine of this kind.
    """
  end

  # Without one the build fails at its end, in many words. That of another name may be set in cargo's configuration, so this is
  # no more than said.
  defp look_for_linker do
    if System.find_executable("cc") == nil do
      Mix.shell().error(
        "There is no C compiler `cc` on PATH, with which Rust links programs. If the build fails for that, install one: " <>
          "`apt-get install build-essential` on Debian and Ubuntu, `xcode-select --install` on macOS"
      )
    end
  end

  ## The Python package

  defp copy_python(old, force?) do
    source_dir = in_root("py_src/snex")

    sources =
      for path <- walk(source_dir), Path.extname(path) == ".py" or Path.basename(path) == "py.typed", do: path

    extension = Path.join(native_dir(), @installed["snex_etf"])
    stamp = stamp(sources, [File.read!(extension)])

    if force? or stamp != old.python or not File.dir?(python_dir()) do
      # All of it anew: that also removes what has no source any more, and bytecode that would pass for current
      # (Python compares sizes and whole seconds).
      File.rm_rf!(python_dir())

      for source <- sources do
        target = Path.join(python_dir(), Path.relative_to(source, source_dir))
        File.mkdir_p!(Path.dirname(target))
        File.cp!(source, target)
      end

      File.cp!(extension, Path.join(python_dir(), @extension))
    end

    stamp
  end

  ## Stamps and folders

  # By content: a checkout of another branch and back leaves nothing to do.
  defp stamp(paths, settings) do
    files =
      for path <- paths,
          {:ok, content} <- [File.read(path)],
          do: {Path.relative_to(path, root()), content}

    :erlang.md5(:erlang.term_to_binary({files, settings}))
  end

  defp read_manifest do
    :erlang.binary_to_term(File.read!(manifest()))
  rescue
    # None yet, or one that is damaged: everything is built.
    _ in [File.Error, ArgumentError] -> %{rust: nil, python: nil, diagnostics: []}
  end

  # Written last: after an interrupted build there is none, or the old one with the old stamp.
  defp write_manifest(state) do
    File.mkdir_p!(Path.dirname(manifest()))
    File.write!(manifest(), :erlang.term_to_binary(state))
  end

  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.cargo")
  defp native_dir, do: Path.join([Mix.Project.app_path(), "priv", "native"])
  defp python_dir, do: Path.join([Mix.Project.app_path(), "priv", "python", "snex"])
  defp installed_paths, do: for({_, name} <- @installed, do: Path.join(native_dir(), name))

  defp target_dir do
    build_path = Mix.Project.build_path()

    case {System.get_env("CARGO_TARGET_DIR"), System.get_env("MIX_BUILD_PATH")} do
      {unset, build} when unset in [nil, ""] and build in [nil, ""] ->
        # Beside the folder of the environment.
        Path.join(installs_dir() || Path.dirname(build_path), "snex_native")

      # MIX_BUILD_PATH names the one folder to write to; what lies beside it is none of ours.
      {unset, _build} when unset in [nil, ""] ->
        Path.join(build_path, "snex_native")

      {chosen, _build} ->
        Path.expand(chosen, root())
    end
  end

  # All files below a folder; a path is never a pattern. (`Snex.Project.Files` is not there yet when this runs.)
  defp walk(path) do
    case File.ls(path) do
      {:ok, names} -> names |> Enum.sort() |> Enum.flat_map(&walk(Path.join(path, &1)))
      {:error, _not_a_folder} -> [path]
    end
  end

  # The folder of `Mix.install`, if this is built by it, as <installs>/elixir-<version>-erts-<version>/<id>/_build/<env>. What
  # MIX_INSTALL_DIR says may be a relative path, or lead through symbolic links.
  defp installs_dir do
    version = "elixir-#{System.version()}-erts-#{:erlang.system_info(:version)}"

    case Mix.Project.build_path() |> Path.split() |> Enum.reverse() do
      [_env, "_build", _id, ^version | installs] -> installs |> Enum.reverse() |> Path.join()
      _ -> nil
    end
  end

  defp version, do: Mix.Project.config()[:version]
  defp root, do: Path.dirname(Mix.Project.project_file())
  defp in_root(path), do: Path.join(root(), path)
end
