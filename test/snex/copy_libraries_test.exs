defmodule Snex.CopyLibrariesTest do
  # Templates that have imported or used libraries with threads of their own: what a copy can go on with, and what is refused.
  use Snex.Case, async: true

  @moduletag :slow
  @moduletag timeout: 600_000

  @toml """
  [project]
  name = "copies-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["numpy", "pandas", "pyarrow", "scikit-learn", "onnxruntime"]
  """

  @kmeans "sklearn.cluster.KMeans(2, n_init=1).fit(np.random.rand(1000, 4)).n_iter_ > 0"

  defp template!(script) do
    opts = [pyproject_toml: @toml, python_preference: :system, init_script: script]
    start_supervised!({Interpreter, opts}, id: make_ref())
  end

  defp copy!(template, opts \\ []) do
    {:ok, copy} = Interpreter.fork(template, opts)
    copy
  end

  defp run(interpreter, code), do: Snex.pyeval(interpreter, code, %{}, timeout: 120_000)

  test "numpy, whose OpenBLAS starts its threads again" do
    product = "float((np.ones((500, 500)) @ np.ones((500, 500))).sum())"
    template = template!("import numpy as np\nassert #{product} == 500 ** 3")
    for _ <- 1..2, do: assert(run(copy!(template), "return #{product}") == {:ok, 125_000_000.0})
    assert run(template, "return #{product}") == {:ok, 125_000_000.0}
  end

  test "random numbers of numpy differ" do
    template = template!("import numpy as np\nnp.random.seed(1)")
    numbers = for _ <- 1..3, do: run(copy!(template), "return int(np.random.randint(1 << 60))")
    assert numbers == Enum.uniq(numbers)
  end

  test "pandas and pyarrow, whose threads are started again" do
    read = "pyarrow.csv.read_csv(io.BytesIO(b'a,b\\n1,2\\n' * 10_000)).num_rows"

    template =
      template!(
        "import io, pandas as pd, pyarrow.csv\n#{read}\ndf = pd.DataFrame({'a': [1, 1], 'b': [2, 3]})"
      )

    copy = copy!(template)
    assert run(copy, "return int(df.groupby('a').b.sum().iloc[0])") == {:ok, 5}
    assert run(copy, "return #{read}") == {:ok, 19_999}
  end

  test "scikit-learn, before its OpenMP has started threads, and not afterwards" do
    template = template!("import numpy as np, sklearn.cluster")
    assert run(copy!(template), "return bool(#{@kmeans})") == {:ok, true}
    assert run(template, "return bool(#{@kmeans})") == {:ok, true}
    assert {:error, %Error{code: :call_failed, reason: reason}} = Interpreter.fork(template)
    assert reason =~ "libgomp"

    limited =
      template!("""
      import threadpoolctl, numpy as np, sklearn.cluster
      with threadpoolctl.threadpool_limits(1):
          #{@kmeans}
      """)

    assert run(copy!(limited), "return bool(#{@kmeans})") == {:ok, true}
  end

  test "onnxruntime is refused by name while it has a thread" do
    template = template!("import onnxruntime, os")

    case Interpreter.fork(template) do
      {:error, %Error{code: :call_failed, reason: reason}} -> assert reason =~ "onnxruntime_pybind11_state"
      {:ok, _copy} -> assert run(template, "return len(os.listdir('/proc/self/task'))") == {:ok, 1}
    end

    copy = copy!(template, threads: :ignore)
    assert {:ok, [_ | _]} = run(copy, "return onnxruntime.get_available_providers()")
  end
end
