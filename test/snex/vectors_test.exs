defmodule Snex.VectorsTest do
  use Snex.Case, async: true

  alias Snex.Vectors

  setup_all do
    {:ok, inp} = start_supervised({Interpreter, init_script: Vectors.watch()})
    {:ok, inp: inp}
  end

  for {vector, index} <- Enum.with_index(Vectors.all()) do
    @tag index: index
    test "#{index} #{vector["name"]}", %{inp: inp, index: index} do
      vector = Enum.at(Vectors.all(), index)
      vars = %{"x" => Vectors.sent(vector["value"])}
      expected = Vectors.received(vector["value"])
      code = "return last[0], last[1], x"
      {:ok, {pickle, buffers, back}} = Snex.pyeval(inp, code, vars, Vectors.opts(vector))

      assert Vectors.text(pickle) == vector["pickle"]

      assert Enum.map(buffers, fn {type, data} -> [type, Vectors.text(data)] end) ==
               Map.get(vector, "buffers", [])

      assert back === expected
      assert :erlang.binary_to_term(Vectors.bytes(vector["etf"])) === expected
    end
  end
end
