defmodule Snex.ReleaseGuideTest do
  use ExUnit.Case, async: true

  alias Snex.ManagedPython
  alias Snex.Markdown

  @guide Path.expand("../docs/release.md", __DIR__)
  @moduletag :tmp_dir
  @moduletag :slow
  @moduletag timeout: 600_000

  # Writes each file, types each command, and compares what is said with the text that follows.
  test "the guide from mix new to a release works as it is written", %{tmp_dir: tmp_dir} do
    # Wherever that is: no path is taken for a pattern.
    folder = Path.join(tmp_dir, "a [b] {c}")
    File.mkdir!(folder)
    File.ln_s!(Path.expand("..", __DIR__), Path.join(folder, "snex"))
    # Only here Python does not come from the network.
    uv = Path.dirname(ManagedPython.uv(folder))

    Enum.reduce(Markdown.blocks(@guide), {folder, ""}, fn
      {"sh", line, commands}, {folder, _said} ->
        {output, status} = run(commands, folder, uv)
        assert status == 0, "#{@guide}:#{line}\n#{output}"
        [said, folder] = String.split(output, "--- now in ")
        {String.trim(folder), said}

      {"text", line, text}, {folder, said} ->
        assert String.contains?(said, text), "#{@guide}:#{line}\n#{said}"
        {folder, said}

      {_language, _line, "# " <> file}, state ->
        [path, content] = String.split(file, "\n", parts: 2)
        File.mkdir_p!(Path.dirname(Path.join(elem(state, 0), path)))
        File.write!(Path.join(elem(state, 0), path), content)
        state
    end)
  end

  defp run(commands, folder, uv) do
    target = Snex.OtherProject.target_dir()
    path = "#{uv}:#{System.get_env("PATH")}"
    env = [{"MIX_ENV", nil}, {"ERL_LIBS", nil}, {"CARGO_TARGET_DIR", target}, {"PATH", path}, {"CI", nil}]

    System.cmd("sh", ["-e", "-c", commands <> ~s(\necho "--- now in $PWD")],
      cd: folder,
      env: env,
      stderr_to_stdout: true
    )
  end
end
