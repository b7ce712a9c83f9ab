defmodule Snex.Serde.RoundTripTest do
  use Snex.Case, async: true

  import Snex.Terms

  @moduletag :interpreter

  defp round_trip(inp, value) do
    {:ok, result} = Snex.pyeval(inp, "return x", %{"x" => value}, timeout: 60_000)
    result
  end

  describe "the extremes" do
    test "one empty of everything", %{inp: inp} do
      values = [nil, "", [], {}, %{}, MapSet.new(), Serde.binary(""), <<0::0>>, Serde.binary("", :bytearray)]
      assert round_trip(inp, values) == [nil, "", [], {}, %{}, MapSet.new(), "", "", ""]
    end

    test "a list nested 100,000 deep travels both ways", %{inp: inp} do
      deep = Enum.reduce(1..100_000, [], fn _, inner -> [inner] end)
      assert round_trip(inp, deep) == deep
    end

    test "a map nested 100,000 deep travels both ways", %{inp: inp} do
      deep = Enum.reduce(1..100_000, %{}, fn _, inner -> %{"k" => inner} end)
      assert round_trip(inp, deep) == deep
    end

    test "tuples, structs and sets nested 100,000 deep", %{inp: inp} do
      for wrap <- [&{&1}, &%URI{path: &1}, &[MapSet.new([1]), &1]] do
        deep = Enum.reduce(1..100_000, nil, fn _, inner -> wrap.(inner) end)
        assert round_trip(inp, deep) == deep
      end
    end

    # Each list is looked at once, not once for each list around it: that would take minutes.
    test "improper lists nested 100,000 deep, and among proper ones", %{inp: inp} do
      for wrap <- [&[&1 | :end], &[[&1] | :end], &[{&1} | :end], &[[:a | :b], &1, [:c | :d]]] do
        deep = Enum.reduce(1..100_000, [1 | 2], fn _, inner -> wrap.(inner) end)
        assert round_trip(inp, deep) == deep
        assert round_trip(inp, [:before, [deep, :x | :y], deep, :x]) == [:before, [deep, :x | :y], deep, :x]
      end

      many = for n <- 1..100_000, do: [:"atom #{rem(n, 5_000)}" | n]
      assert round_trip(inp, many) == many
    end

    test "a map of a million keys", %{inp: inp} do
      map = Map.new(1..1_000_000, &{&1, nil})
      assert round_trip(inp, map) == map
    end

    test "an integer of 100,000 digits", %{inp: inp} do
      number = String.to_integer(String.duplicate("7", 100_000))
      assert round_trip(inp, [number, -number, number * number]) == [number, -number, number * number]
    end

    test "every power of two and its neighbours up to 2^300", %{inp: inp} do
      numbers = for exponent <- 0..300, offset <- -1..1, sign <- [1, -1], do: sign * (2 ** exponent + offset)
      assert round_trip(inp, numbers) == numbers
    end

    test "long containers", %{inp: inp} do
      range = Enum.to_list(1..100_000)
      assert round_trip(inp, range) == range
      assert round_trip(inp, Map.new(range, &{&1, to_string(&1)})) == Map.new(range, &{&1, to_string(&1)})
      assert round_trip(inp, MapSet.new(range)) == MapSet.new(range)
      assert round_trip(inp, List.to_tuple(range)) == List.to_tuple(range)
    end

    test "many atoms, and atoms outside of Latin-1", %{inp: inp} do
      atoms = for n <- 1..2000, do: :"atom #{n} ж"
      assert round_trip(inp, atoms ++ atoms) == atoms ++ atoms
    end

    test "improper lists with anything in them, and what was written before them", %{inp: inp} do
      big = String.duplicate("b", 100_000)
      value = [:seen, [:new, big, [:newer | :tail] | :end], :new, :newer, big, [1, 2 | 3]]
      assert round_trip(inp, value) === value
    end

    test "sub-binaries and bitstrings at any offset", %{inp: inp} do
      data = :crypto.strong_rand_bytes(200_000)

      for offset <- [1, 3, 8, 13], size <- [10, 100_000] do
        <<_::size(offset), part::binary-size(size), _::bitstring>> = data
        assert round_trip(inp, Serde.binary(part)) == part
      end

      <<bits::size(1001)-bitstring, _::bitstring>> = data
      assert round_trip(inp, bits) == bits
    end

    test "a binary that is appended to while it travels keeps its content", %{inp: inp} do
      before = String.duplicate("a", 200_000)
      grown = before <> "b"
      task = Task.async(fn -> round_trip(inp, Serde.binary(grown)) end)
      for n <- 1..100, do: grown <> <<n>>
      assert Task.await(task, :infinity) == before <> "b"
    end

    # Two tests, each with one copy or two of it in memory at a time.
    @five_gib 5 * 1024 * 1024 * 1024

    defp five_gib, do: :binary.copy(:binary.copy(<<1, 2, 3, 4, 5, 6, 7, 8>>, 128 * 1024), 5 * 1024)

    @tag :long
    @tag timeout: :infinity
    test "a binary of 5 GiB to Python", %{inp: inp} do
      code = "import hashlib\nreturn len(x), hashlib.blake2b(x).digest()"
      data = five_gib()
      {:ok, {size, digest}} = Snex.pyeval(inp, code, %{"x" => Serde.binary(data)}, timeout: :infinity)
      assert size == @five_gib
      assert digest == :crypto.hash(:blake2b, data)
    end

    @tag :long
    @tag timeout: :infinity
    test "a binary of 5 GiB from Python is refused or passed, never wrong", %{inp: inp} do
      code = "return bytes(range(1, 9)) * (n // 8)"

      case Snex.pyeval(inp, code, %{"n" => @five_gib}, timeout: :infinity) do
        {:ok, data} -> assert :crypto.hash(:blake2b, data) == :crypto.hash(:blake2b, five_gib())
        {:error, error} -> assert error.reason =~ "5368709120"
      end

      assert Snex.pyeval(inp, "return 1") == {:ok, 1}
    end
  end

  describe "round trips" do
    for {name, path} <- Snex.Case.pythons() do
      @tag path: path
      @tag timeout: 600_000
      test "structs that have a counterpart in Python come back the same on #{name}", %{path: path} do
        inp = start_interpreter!(python: path, encoding_opts: [structs_as: :native])

        property =
          :proper.forall(native_term(), fn value ->
            {:ok, [result]} = Snex.pyeval(inp, "return [x]", %{"x" => value})
            result === value
          end)

        report = :proper.quickcheck(property, [:quiet, :long_result, numtests: 1_000, max_size: 30])
        assert report == true, "came back changed: #{inspect(report, limit: 200)}"
      end
    end

    for {{name, path}, index} <- Enum.with_index(Snex.Case.pythons()) do
      # The full count on one Python in CI, fewer elsewhere.
      @tag path: path, runs: if(index == 0 and System.get_env("CI") == "true", do: 10_000, else: 1_000)
      @tag timeout: 600_000
      test "random terms come back unchanged on #{name}", %{path: path, runs: runs} do
        inp = start_interpreter!(python: path)
        {:ok, env} = Snex.make_env(inp)

        property =
          :proper.forall(any_term(), fn {sent, expected} ->
            {:ok, result} = Snex.pyeval(env, "return x", %{"x" => sent})
            result === expected
          end)

        report = :proper.quickcheck(property, [:quiet, :long_result, numtests: runs, max_size: 30])
        assert report == true, "came back changed: #{inspect(report, limit: 200)}"
      end
    end
  end
end
