defmodule Snex.Vectors do
  @moduledoc """
  The vectors that the tests of all three languages share; `test/vectors/README.md` tells their format.
  """

  @path Path.expand("../vectors/vectors.json", __DIR__)
  @external_resource @path

  @doc """
  The file.
  """
  def path, do: @path

  @doc """
  All of them.
  """
  def all, do: @path |> File.read!() |> JSON.decode!()

  @doc """
  The options of `Snex.pyeval/4` that a vector asks for.
  """
  def opts(vector) do
    [
      encoding_opts: for({name, value} <- Map.get(vector, "opts", %{}), do: {atom(name), atom(value)}),
      # With a time, that would be in the request as well.
      timeout: :infinity
    ]
  end

  @doc """
  Bytes from their text.
  """
  def bytes(text) do
    for piece <- String.split(text), into: <<>> do
      case String.split(piece, "*") do
        [hex] -> Base.decode16!(hex, case: :lower)
        [hex, count] -> :binary.copy(Base.decode16!(hex, case: :lower), String.to_integer(count))
      end
    end
  end

  @doc """
  Text for bytes; the same byte many times is written once.
  """
  def text(bytes), do: bytes |> :binary.bin_to_list() |> Enum.chunk_by(& &1) |> Enum.map(&run/1) |> join()

  defp run(bytes) when length(bytes) < 16, do: {:hex, Base.encode16(:binary.list_to_bin(bytes), case: :lower)}
  defp run([byte | _] = bytes), do: {:run, "#{Base.encode16(<<byte>>, case: :lower)}*#{length(bytes)}"}

  defp join(runs) do
    runs
    |> Enum.chunk_by(&elem(&1, 0))
    |> Enum.map_join(" ", fn
      [{:hex, _} | _] = hex -> Enum.map_join(hex, &elem(&1, 1))
      runs -> Enum.map_join(runs, " ", &elem(&1, 1))
    end)
  end

  @doc """
  The term that stands for a value on its way to Python.
  """
  def sent(value) when value in [nil, true, false], do: value

  def sent(value) do
    case Map.to_list(value) do
      [{"special", name}] ->
        Snex.Serde.float(atom(name))

      [{kind, text}] when kind in ["bytes", "bytearray", "memoryview"] ->
        Snex.Serde.binary(bytes(text), atom(kind))

      [{"term", text}] ->
        Snex.Serde.term(:erlang.binary_to_term(bytes(text)))

      [{"callback", text}] ->
        Snex.Serde.callback(:erlang.binary_to_term(bytes(text)))

      [{"struct", [text | _]}] ->
        :erlang.binary_to_term(bytes(text))

      [{"object", [module, class, args]}] ->
        Snex.Serde.object(module, class, Enum.map(args, &sent/1))

      [{kind, inner}] ->
        plain(kind, inner, &sent/1)
    end
  end

  @doc """
  The term that comes back.
  """
  def received(value) when value in [nil, true, false], do: value

  def received(value) do
    case Map.to_list(value) do
      [{"special", name}] -> atom(name)
      [{kind, text}] when kind in ["bytes", "bytearray", "memoryview"] -> bytes(text)
      [{"term", text}] -> :erlang.binary_to_term(bytes(text))
      [{"struct", [text | _]}] -> :erlang.binary_to_term(bytes(text))
      # The only class of the vectors.
      [{"object", ["builtins", "list", []]}] -> []
      [{"object", ["builtins", "list", [tuple]]}] -> tuple |> received() |> Tuple.to_list()
      [{kind, inner}] -> plain(kind, inner, &received/1)
    end
  end

  defp plain("int", digits, _), do: String.to_integer(digits)

  defp plain("float", hex, _) do
    <<float::float>> = Base.decode16!(hex, case: :lower)
    float
  end

  defp plain("str", text, _), do: bytes(text)
  defp plain("atom", name, _), do: atom(name)
  defp plain("distinct_atom", name, _), do: atom(name)
  defp plain("list", items, inner), do: Enum.map(items, inner)
  defp plain("tuple", items, inner), do: items |> Enum.map(inner) |> List.to_tuple()
  defp plain("repeat", [item, count], inner), do: List.duplicate(inner.(item), count)
  defp plain("map", pairs, inner), do: Map.new(pairs, fn [key, value] -> {inner.(key), inner.(value)} end)
  defp plain(kind, items, inner) when kind in ["set", "frozenset"], do: MapSet.new(items, inner)

  defp plain(kind, text, _) when kind in ["opaque", "function", "callback"],
    do: :erlang.binary_to_term(bytes(text))

  # From a file of this project.
  defp atom(name), do: String.to_atom(name)

  @doc """
  Code that returns what has arrived for `x`: `(pickle, buffers)` of it alone, its `repr`, and how it is encoded.

  The variables are the last part of a request, and `x` is the only one.
  """
  def watch do
    """
    from snex import _interpreter
    from snex._etf.encoder import encode
    from snex._wire.sinks import SINKS

    last = []
    real = _interpreter.load

    def load(body, sinks):
        # `x`, before its value; the end of the variables, of the request's tuple, and of the pickle, behind.
        start = bytes(body).find(b"}(\\x8c\\x01x")
        if start >= 0:
            buffers = [(SINKS.index(type(sink)), bytes(sink.content())) for sink in sinks]
            last[:] = [b"\\x80\\x05" + bytes(body)[start + 5:-3] + b".", buffers]
        return real(body, sinks)

    _interpreter.load = load
    _interpreter.loads = lambda body: load(body, ())
    """
  end
end
