# Mix hides applications that a project does not list; PropEr is only for these tests.
for path <- Path.wildcard(Path.join(:code.root_dir(), "lib/proper-*/ebin")), do: Code.append_path(path)

# By default uv would download a Python for each project. Tests of that unset the variable.
if System.get_env("UV_PYTHON_PREFERENCE", "") == "", do: System.put_env("UV_PYTHON_PREFERENCE", "system")

# :slow takes many seconds, and runs in CI as well: releases, projects of their own. :long takes minutes, and runs by hand:
# `mix test --only long`.
excluded = if System.get_env("CI") == "true", do: [:long], else: [:slow, :long]
# A busy machine takes its time.
ExUnit.start(exclude: excluded, capture_log: true, timeout: 300_000)

# A panic is caught where it would end the VM, and is a bug all the same.
ExUnit.after_suite(fn _result ->
  case Snex.Native.panics() do
    0 ->
      :ok

    count ->
      IO.puts(:stderr, "\nThe native code has panicked #{count} times, see standard error.")
      exit({:shutdown, 1})
  end
end)
