defmodule Snex.TestTest do
  use Snex.Case, async: true

  @moduletag timeout: 300_000

  doctest Snex.Test

  setup_all do
    {:ok, py: Snex.Test.start!({Interpreter, init_script: "import os, sys; x = 1"})}
  end

  for n <- 1..2 do
    test "a sandbox is seen by one test, #{n}", %{py: py} do
      env = Snex.Test.sandbox!(py, %{"mine" => unquote(n)})
      assert Snex.pyeval(env, "x += 1; return x, mine") == {:ok, {2, unquote(n)}}
    end

    test "a sandbox with fork: true is a process of its own, #{n}", %{py: py} do
      env = Snex.Test.sandbox!(py, %{"mine" => unquote(n)}, fork: true)

      assert Snex.pyeval(env, "sys.mark = getattr(sys, 'mark', 0) + mine; return sys.mark") ==
               {:ok, unquote(n)}

      assert {:error, %Error{code: :interpreter_exited}} = Snex.pyeval(env, "os._exit(1)")
      assert Snex.pyeval(py, "return hasattr(sys, 'mark')") == {:ok, false}
    end
  end

  test "what is printed is that of the call alone, whatever comes of it", %{py: py} do
    calls =
      for n <- 1..20 do
        Task.async(fn ->
          Snex.Test.capture(
            &Snex.pyeval(
              py,
              "print(n); print(-n, file=sys.stderr); 1 / 0",
              %{"n" => n},
              [timeout: 60_000] ++ &1
            )
          )
        end)
      end

    for {{result, printed}, n} <- Enum.zip(Task.await_many(calls, 60_000), 1..20) do
      assert {:error, %Error{code: :python_runtime_error}} = result
      assert printed == %{stdout: "#{n}\n", stderr: "-#{n}\n"}
    end
  end

  test "what cannot be started is an error" do
    Process.flag(:trap_exit, true)
    assert_raise Error, ~r"division by zero", fn -> Snex.Test.start!({Interpreter, init_script: "1 / 0"}) end
    assert_raise ArgumentError, fn -> Snex.Test.sandbox!(self(), %{}, forks: true) end
  end
end
