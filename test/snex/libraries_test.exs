defmodule Snex.LibrariesTest do
  # Not async: the variable that says where caches go is exchanged.
  use Snex.Case

  import ExUnit.CaptureIO

  @moduletag :slow
  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @toml """
  [project]
  name = "libraries"
  version = "0.1.0"
  requires-python = ">=3.10"
  dependencies = ["pandas"]
  """

  setup %{tmp_dir: folder}, do: exchange_cache(folder)

  for encoder <- ["native", "pure"] do
    test "numpy's numbers are numbers, and data frames stay in Python: the #{encoder} encoder" do
      environment = if unquote(encoder) == "pure", do: %{"SNEX_ENCODER" => "pure"}, else: %{}
      options = [pyproject_toml: @toml, python_preference: :system, environment: environment]
      {{:ok, py}, _output} = with_io(fn -> Interpreter.start_link(options) end)

      {:ok, %Snex.Object{type: "pandas" <> _} = frame} =
        Snex.call(py, "pandas.DataFrame", [%{"a" => [1, 2], "b" => [3, 4]}], returns: :object)

      assert Snex.Object.call(frame, "a.sum", []) == {:ok, 3}
      assert {:ok, %Snex.Object{}} = Snex.Object.get(frame, "T", returns: :object)
      assert Snex.pyeval(py, "return list(frame['a'])", %{"frame" => frame}) == {:ok, [1, 2]}

      {:ok, env} = Snex.make_env(py)
      {:ok, nil} = Snex.pyeval(env, "import numpy as np")

      assert Snex.pyeval(
               env,
               "return np.int8(-1), np.uint64(2**64 - 1), np.float32(0.5), np.float16(0.5), np.bool_(1)"
             ) ==
               {:ok, {-1, 2 ** 64 - 1, 0.5, 0.5, true}}

      assert Snex.pyeval(env, "return {np.int64(3): [np.float64(1.5)]}") == {:ok, %{3 => [1.5]}}

      assert Snex.pyeval(
               env,
               "return np.complex64(1j), np.datetime64('2026-01-02'), np.datetime64('2026-01-02T03:04:05.5', 'ns')"
             ) == {:ok, {{0.0, 1.0}, ~D[2026-01-02], ~N[2026-01-02 03:04:05.500000]}}

      assert Snex.pyeval(
               env,
               "return np.timedelta64(-1500, 'ms'), np.timedelta64('NaT', 's'), np.datetime64('NaT', 's')"
             ) == {:ok, {Duration.new!(second: -1, microsecond: {-500_000, 6}), nil, nil}}

      for {value, why} <- [
            {"np.timedelta64(1, 'M')", "months vary in length"},
            {"np.datetime64(20_000, 'Y')", "it is outside the range of Python's datetime"},
            {"np.datetime64(2**62, 's')", "it is outside the range of Python's datetime"},
            {"np.timedelta64(2**62, 'h')", "it is outside the range of Python's datetime"},
            {"np.longdouble(1)", "convert it with float()"},
            {"np.void(b'x')", "convert it, see snex.register_encoder"}
          ] do
        assert {:error, error} = Snex.pyeval(env, "return [#{value}]")
        assert error.reason =~ "[0]: Cannot serialize object of <class 'numpy."
        assert error.reason =~ why
      end

      code = """
      import pandas as pd
      return [pd.Timestamp("2026-01-02T03:04:05.123456789"), pd.Timestamp("2026-07-01", tz="Europe/Berlin"),
              pd.Timedelta(hours=30), pd.NaT, pd.NA, {"frame": list(pd.Series([1, None], dtype="Int64"))}]
      """

      assert {:ok, [at, berlin, hours, nil, nil, %{"frame" => [1, nil]}]} = Snex.pyeval(env, code)
      assert at == ~N[2026-01-02 03:04:05.123456]

      assert %DateTime{time_zone: "Europe/Berlin", zone_abbr: "CEST", utc_offset: 3600, std_offset: 3600} =
               berlin

      assert DateTime.to_unix(berlin) == DateTime.to_unix(~U[2026-06-30 22:00:00Z])
      assert hours == Duration.new!(day: 1, second: 6 * 3600)

      assert {:ok, {%Snex.Object{type: "numpy.longdouble"}, [%Snex.Object{type: "numpy.ndarray"}]}} =
               Snex.pyeval(env, "return np.longdouble(1), [np.array(['a'])]", returns: :auto)

      # What the program says itself comes first; a TypeError says nothing.
      encoder = """
      def encoder(value):
          if isinstance(value, np.int64):
              return "mine"
          raise TypeError("not mine")
      snex.set_custom_encoder(encoder)
      return np.int64(1), np.int32(1)
      """

      assert Snex.pyeval(env, encoder) == {:ok, {"mine", 1}}
      assert {:error, %{reason: reason}} = Snex.pyeval(env, "return object()")
      assert reason =~ "not mine"
    end
  end

  test "arrays are copied to another interpreter with their memory as it is" do
    options = [pyproject_toml: @toml, python_preference: :system]
    {[one, other], _output} = with_io(fn -> for _ <- 1..2, do: elem(Interpreter.start_link(options), 1) end)

    code = """
    import numpy as np
    large = np.arange(4_000_000, dtype=np.float64).reshape(2000, 2000)
    arrays = [large, large[::2, 1:5], np.array(["a", None], dtype=object), np.array(7), np.zeros((0, 3)), large.T]
    return [snex.keep(array) for array in arrays]
    """

    {:ok, arrays} = Snex.pyeval(one, code)
    assert [%Snex.Object{type: "numpy.ndarray"} | _] = arrays

    same = """
    import numpy as np
    large = np.arange(4_000_000, dtype=np.float64).reshape(2000, 2000)
    mine = [large, large[::2, 1:5], np.array(["a", None], dtype=object), np.array(7), np.zeros((0, 3)), large.T]
    return [bool(np.array_equal(a, b)) and a.dtype == b.dtype and b.flags.writeable for a, b in zip(mine, theirs)]
    """

    copies = for array <- arrays, do: Snex.Object.copy!(array, other, timeout: 60_000)
    assert Snex.pyeval(other, same, %{"theirs" => copies}, timeout: 60_000) == {:ok, List.duplicate(true, 6)}

    # Each has memory of its own.
    assert Snex.Object.put_item(hd(copies), {0, 0}, -1.0) == :ok
    assert Snex.Object.item(hd(arrays), {0, 0}) == {:ok, 0.0}
    assert Snex.Object.item(hd(copies), {0, 0}) == {:ok, -1.0}

    frame = Snex.call!(one, "pandas.DataFrame", [%{"a" => [1, 2]}])
    assert Snex.Object.call(Snex.Object.copy!(frame, other), "a.sum", []) == {:ok, 3}
  end
end
