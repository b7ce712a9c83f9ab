defmodule Snex.ScipyTest do
  # Elixir functions in a real library, which calls them from C.
  use Snex.Case, async: true

  @moduletag :slow
  @moduletag timeout: 600_000

  @toml """
  [project]
  name = "scipy-test"
  version = "0.0.0"
  requires-python = ">=3.10"
  dependencies = ["scipy"]
  """

  test "an Elixir function is the objective of an optimiser, and the model of a fit" do
    inp = start_supervised!({Interpreter, pyproject_toml: @toml})

    # Rosenbrock's valley, whose lowest point is at (1, 1).
    valley = Serde.callback(fn [x, y] -> (1 - x) ** 2 + 100 * (y - x * x) ** 2 end)

    code = """
    from scipy.optimize import minimize
    found = minimize(lambda x: valley(x.tolist()), [-1.0, 2.0], method="Nelder-Mead")
    return bool(found.success), found.x.tolist(), int(found.nfev)
    """

    assert {:ok, {true, [x, y], calls}} = Snex.pyeval(inp, code, %{"valley" => valley}, timeout: 300_000)
    assert_in_delta x, 1, 0.001
    assert_in_delta y, 1, 0.001
    assert calls > 50

    # How many parameters there are, scipy finds out from the signature.
    line = Serde.callback(fn x, a, b -> Enum.map(x, &(a * &1 + b)) end)

    code = """
    import inspect, numpy as np
    from scipy.optimize import curve_fit
    model = lambda x, a, b: np.array(line(x.tolist(), a, b))
    fitted, _ = curve_fit(model, np.array([0.0, 1, 2, 3]), np.array([1.0, 3, 5, 7]))
    return fitted.tolist(), len(inspect.signature(line).parameters)
    """

    assert {:ok, {[a, b], 3}} = Snex.pyeval(inp, code, %{"line" => line}, timeout: 300_000)
    assert_in_delta a, 2, 0.001
    assert_in_delta b, 1, 0.001
  end
end
