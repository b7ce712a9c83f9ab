defmodule Snex.Interpreter.MemoryTest do
  use Snex.Case, async: true

  @moduletag timeout: 300_000

  # 2 GiB of address space in all, of which the VM itself takes the smaller part.
  @space 2 * 1024 * 1024

  test "a reply for which the VM has no memory ends the interpreter, and says its size; the VM lives on" do
    {_name, python} = hd(pythons())

    script = """
    Process.flag(:trap_exit, true)
    wrap = fn python, args -> {"/bin/sh", ["-c", "ulimit -v unlimited; exec \\"$@\\"", "sh", python | args]} end
    {:ok, inp} = Snex.Interpreter.start_link(python: #{inspect(python)}, wrap_exec: wrap, limits: [reply: 4 * 1024 ** 3])
    # Python has the memory, which the VM lacks.
    {:error, error} = Snex.pyeval(inp, "return bytes(3 << 30)", timeout: :infinity)
    IO.puts("code: " <> inspect(error.code) <> " " <> error.reason)
    {:ok, inp} = Snex.Interpreter.start_link(python: #{inspect(python)})
    IO.puts("then: " <> inspect(Snex.pyeval(inp, "return 1")))
    """

    # Without the current folder, which may be called `snex` as well.
    paths = for path <- :code.get_path(), path != ~c".", argument <- ["-pa", to_string(path)], do: argument
    # The hard limit stays, so that Python's own can be raised again.
    command = "ulimit -S -v #{@space}; exec \"$@\""

    {output, status} =
      System.cmd(
        "/bin/sh",
        ["-c", command, "sh", System.find_executable("elixir")] ++
          ["--erl", "+MIscs 128 +S 2"] ++ paths ++ ["-e", script],
        stderr_to_stdout: true,
        env: [{"ERL_CRASH_DUMP_BYTES", "0"}]
      )

    assert output =~ "the VM has no memory for a frame of 32212254", output
    assert output =~ "code: :internal_error", output
    assert output =~ "then: {:ok, 1}", output
    assert status == 0, output
  end
end
