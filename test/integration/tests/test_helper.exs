# By default uv would download a Python.
if System.get_env("UV_PYTHON_PREFERENCE", "") == "", do: System.put_env("UV_PYTHON_PREFERENCE", "system")

ExUnit.start(timeout: 600_000)

defmodule Snex.Integration do
  @moduledoc """
  An interpreter with the libraries whose values travel.
  """

  @libraries ["numpy", "ml-dtypes", "pandas", "polars", "pyarrow"]

  def start!(options \\ []) do
    toml = """
    [project]
    name = "integration"
    version = "0.0.0"
    requires-python = ">=3.10"
    dependencies = #{inspect(@libraries)}
    """

    defaults = [
      pyproject_toml: toml,
      python_preference: :system,
      init_script:
        "import datetime, decimal, ml_dtypes, numpy as np, pandas as pd, polars as pl, pyarrow as pa",
      init_script_timeout: 300_000
    ]

    ExUnit.Callbacks.start_supervised!({Snex.Interpreter, Keyword.merge(defaults, options)}, id: make_ref())
  end

  @doc """
  Runs the examples of the page about data that need a library: blocks of Elixir below a comment `<!-- with LIBRARY -->`.
  """
  def run_examples(library, bindings) do
    page = Path.expand("../../../docs/data.md", __DIR__)

    blocks =
      Regex.scan(~r/^<!-- with #{library} -->\n```elixir\n(.*?)^```/ms, File.read!(page),
        capture: :all_but_first
      )

    true = blocks != []
    for [code] <- blocks, do: Code.eval_string(code, bindings, file: page)
  end

  @doc """
  An environment for each encoder.
  """
  def environments! do
    for encoder <- ["native", "pure"] do
      environment = if encoder == "pure", do: %{"SNEX_ENCODER" => "pure"}, else: %{}
      {:ok, env} = Snex.make_env(start!(environment: environment))
      env
    end
  end
end
