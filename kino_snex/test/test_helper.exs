# By default uv would download a Python.
if System.get_env("UV_PYTHON_PREFERENCE", "") == "", do: System.put_env("UV_PYTHON_PREFERENCE", "system")

ExUnit.start(timeout: 600_000)
