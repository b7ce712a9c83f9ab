# Prints how much the resident memory of this VM and of a Python has grown at its peak while a binary of so many MiB travels
# from one to the other. In a VM of its own: nothing has been left behind that could be used again.
[python, mebibytes] = System.argv()
size = String.to_integer(mebibytes) * 1024 * 1024
{:ok, interpreter} = Snex.Interpreter.start_link(python: python)
{:ok, 1} = Snex.pyeval(interpreter, "return len(x)", %{"x" => Snex.Serde.binary("x")})

status = fn pid, field ->
  [_, kibibytes] = Regex.run(~r/^#{field}:\s+(\d+) kB/m, File.read!("/proc/#{pid}/status"))
  String.to_integer(kibibytes) * 1024
end

pids = [System.pid(), Snex.Interpreter.os_pid(interpreter)]
before = pids |> Enum.map(&status.(&1, "VmRSS")) |> Enum.sum()
value = Snex.Serde.binary(:binary.copy(<<1>>, size))
{:ok, ^size} = Snex.pyeval(interpreter, "return len(x)", %{"x" => value}, timeout: 60_000)
peak = pids |> Enum.map(&status.(&1, "VmHWM")) |> Enum.sum()
IO.puts(peak - before)
