defmodule Snex.Map.WireTest do
  # What the VM makes of answers that cannot be. Not Python speaks here, but a puppet.
  use Snex.Case, async: true

  @moduletag :capture_log

  setup do
    {_name, python} = hd(pythons())
    puppet = Path.expand("../../support/python/puppet.py", __DIR__)
    play = fn _python, [_main | args] -> {python, ["-S", "-E", puppet | args]} end
    {:ok, puppet: start_interpreter!(python: python, wrap_exec: play, stop_timeout: 500)}
  end

  # As Python source.
  defp term(term) do
    <<131, etf::binary>> = :erlang.term_to_binary(term)
    "bytes(" <> inspect(:erlang.binary_to_list(etf), limit: :infinity, charlists: :as_lists) <> ")"
  end

  @error %{"code" => "python_runtime_error", "reason" => "r", "traceback" => [], "exception" => nil}

  test "an answer that is in order is understood", %{puppet: puppet} do
    assert Snex.map(puppet, "f", [term({1, [[17]]})]) == [ok: 17]

    assert [error: %Error{code: :python_runtime_error, reason: "r"}] =
             Snex.map(puppet, "f", [term({1, [@error]})])

    assert [error: %Error{code: :python_runtime_error, reason: "r"}] =
             Snex.map(puppet, "f", [term({0, [@error]})])

    # Frames do not grow beyond what the function's time allows, however fast it is said to be.
    several = for n <- 1..10, do: term({1_000_000_000, [[n]]})
    assert [{:ok, 1}, {:ok, 2} | _] = Snex.map(puppet, "f", several, demand: 1)
  end

  test "one that cannot be is an error of the elements that it is for", %{puppet: puppet} do
    for answer <- [
          nil,
          [],
          {},
          {1, []},
          {1, [[]]},
          {1, [[1, 2]]},
          {1, [[1], [2]]},
          {1, [[1], @error]},
          {1, 1},
          {1, [[1 | 2]]},
          {1, [[1] | 2]},
          {-1, [[1]]},
          {0, [[1]]},
          {0, []},
          {0, [@error, @error]},
          {1.0, [[1]]},
          {:ok, [[1]]},
          {1, [1]},
          {1, [%{"code" => "none"}]}
        ] do
      assert [error: %Error{code: :internal_error}] = Snex.map(puppet, "f", [term(answer)])
    end

    assert Snex.map(puppet, "f", [term({1, [[17]]})]) == [ok: 17]
  end

  @tag timeout: 300_000
  test "whatever the answer is, each element has one result", %{puppet: puppet} do
    any = :proper_types.any()
    run = :proper_types.oneof([:proper_types.list(any), :proper_types.exactly(@error), any])
    fit = :proper_types.oneof([:proper_types.integer(), any])
    answer = :proper_types.oneof([{fit, :proper_types.resize(2, :proper_types.list(run))}, any])

    property =
      :proper.forall(answer, fn answer ->
        case Snex.map(puppet, "f", [term(answer)], timeout: 60_000) do
          [ok: _value] -> true
          [error: %Error{code: code}] -> code in [:internal_error, :python_runtime_error]
        end
      end)

    # Not so large that they would travel beside the pickle.
    assert :proper.quickcheck(property, [:quiet, numtests: 300, max_size: 15])
  end
end
