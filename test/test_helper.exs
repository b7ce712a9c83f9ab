# Mix hides applications that a project does not list; PropEr is only for these tests.
for path <- Path.wildcard(Path.join(:code.root_dir(), "lib/proper-*/ebin")), do: Code.append_path(path)

ExUnit.start(exclude: [:slow], capture_log: true)
