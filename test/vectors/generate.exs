# Writes vectors.json anew: MIX_ENV=test mix run test/vectors/generate.exs
#
# The values are written down here; their bytes come from the product itself, through a real interpreter. So a look at
# the diff is part of it: bytes that change without a reason are a mistake.
alias Snex.Vectors

text = &Vectors.text/1
str = &%{"str" => text.(&1)}
int = &%{"int" => to_string(&1)}
etf = &text.(:erlang.term_to_binary(&1))
special = &%{"special" => &1}
float = fn float -> %{"float" => Base.encode16(<<float::float>>, case: :lower)} end
atom = &%{"atom" => &1}

# Around each place where another opcode, or another tag, begins.
edges =
  for power <- [0, 7, 8, 15, 16, 31, 32, 62, 63, 64, 2031, 2032, 2039, 2040, 2048],
      by <- [-1, 0, 1],
      sign <- [1, -1],
      uniq: true do
    sign * (2 ** power + by)
  end

sizes = [0, 1, 255, 256, 65_535, 65_536]

integers =
  for number <- Enum.sort([10 ** 30 | edges]) do
    bits = number |> abs() |> Integer.digits(2) |> length()
    name = if bits > 64, do: "of #{bits} bits ending in #{rem(number, 1000)}", else: number
    {"integer #{name}", int.(number)}
  end

binaries =
  for kind <- ["str", "bytes", "bytearray", "memoryview"], size <- sizes do
    {"#{kind} of #{size} bytes", %{kind => text.(:binary.copy("a", size))}}
  end

# A struct, and how Python makes what it has for it.
native = &%{"struct" => [etf.(&1), &2, &3, &4]}
numbers = &Enum.map(&1, int)
as_native = %{"structs_as" => "native"}

array = fn type, name, shape, data ->
  arguments = [str.(name), %{"tuple" => numbers.(Tuple.to_list(shape))}, %{"memory" => text.(data)}]
  native.(Snex.Array.new(data, type, shape), "snex._etf.loading", "array", arguments)
end

berlin = %DateTime{
  year: 2026,
  month: 10,
  day: 25,
  hour: 2,
  minute: 30,
  second: 0,
  microsecond: {0, 0},
  time_zone: "Europe/Berlin",
  zone_abbr: "CET",
  utc_offset: 3600,
  std_offset: 0
}

structs =
  [
    {"Date", native.(~D[2026-11-21], "datetime", "date", numbers.([2026, 11, 21]))},
    {"Date, the first of Python's", native.(~D[0001-01-01], "datetime", "date", numbers.([1, 1, 1]))},
    {"Date, the last of Python's", native.(~D[9999-12-31], "datetime", "date", numbers.([9999, 12, 31]))},
    # None of Time: the tests give it an encoder of their own, which comes first.
    {"NaiveDateTime",
     native.(
       ~N[2026-11-21 12:30:00.250000],
       "datetime",
       "datetime",
       numbers.([2026, 11, 21, 12, 30, 0, 250_000])
     )},
    {"DateTime in UTC",
     native.(
       ~U[2026-11-21 12:30:00Z],
       "snex._etf.loading",
       "zoned",
       numbers.([2026, 11, 21, 12, 30, 0, 0]) ++ [str.("Etc/UTC"), int.(0)]
     )},
    {"DateTime that comes twice, the second time",
     native.(
       berlin,
       "snex._etf.loading",
       "zoned",
       numbers.([2026, 10, 25, 2, 30, 0, 0]) ++ [str.("Europe/Berlin"), int.(3600)]
     )},
    {"Duration",
     native.(
       Duration.new!(day: 1, second: 7, microsecond: {250_000, 6}),
       "datetime",
       "timedelta",
       numbers.([1, 7, 250_000])
     )},
    {"Duration below zero",
     native.(
       Duration.new!(day: -1, second: -7, microsecond: {-250_000, 6}),
       "datetime",
       "timedelta",
       numbers.([-2, 86_392, 750_000])
     )},
    {"Decimal", native.(%Decimal{sign: -1, coef: 120, exp: -2}, "decimal", "Decimal", [str.("-120E-2")])},
    {"Decimal infinite",
     native.(%Decimal{sign: -1, coef: :inf, exp: 0}, "decimal", "Decimal", [str.("-Infinity")])},
    {"Decimal that is no number",
     native.(%Decimal{sign: 1, coef: :NaN, exp: 0}, "decimal", "Decimal", [str.("NaN")])},
    {"Decimal of 31 digits",
     native.(
       %Decimal{sign: -1, coef: 10 ** 30, exp: 3},
       "snex._etf.loading",
       "number",
       [str.("-"), int.(10 ** 30), int.(3)]
     )},
    {"Range", native.(1..10//3, "snex._etf.loading", "inclusive", numbers.([1, 10, 3]))},
    {"Range downwards", native.(3..1//-1, "snex._etf.loading", "inclusive", numbers.([3, 1, -1]))},
    {"Range of large numbers",
     native.(0..(2 ** 70), "snex._etf.loading", "inclusive", numbers.([0, 2 ** 70, 1]))}
  ]
  |> Enum.map(&Tuple.insert_at(&1, 2, as_native))

arrays = [
  {"array", array.({:s, 16}, "s16", {2, 3}, <<1, 0, 2, 0, 3, 0, 255, 255, 5, 0, 6, 0>>)},
  {"array of one number without axes", array.({:f, 64}, "f64", {}, <<0, 0, 0, 0, 0, 0, 248, 63>>)},
  {"array without numbers", array.({:f, 32}, "f32", {0}, <<>>)},
  {"array of bytes", array.({:u, 8}, "u8", {2, 2}, <<1, 2, 3, 4>>)},
  {"array of 65535 bytes", array.({:u, 8}, "u8", {3, 21_845}, :binary.copy(<<7>>, 65_535))},
  {"array of 65536 bytes", array.({:u, 64}, "u64", {2, 4096}, :binary.copy(<<7>>, 65_536))}
]

local_pid = :erlang.list_to_pid(~c"<0.1.0>")

vectors =
  [{"nil", nil}, {"true", true}, {"false", false}] ++
    integers ++
    [
      {"float", float.(0.1)},
      {"float zero", float.(0.0)},
      {"float minus zero", float.(-0.0)},
      {"float smallest subnormal", float.(5.0e-324)},
      {"float largest subnormal", float.(2.225073858507201e-308)},
      {"float largest", float.(1.7976931348623157e308)},
      {"float inf", special.("inf")},
      {"float -inf", special.("-inf")},
      {"float nan", special.("nan")},
      {"str of two bytes a character", str.("żółw")},
      {"str of four bytes a character", str.("𝄞")},
      {"str with zero", str.("a\0b")},
      {"bytes that are no text", %{"bytes" => text.(<<0, 255, 128>>)}},
      {"str by option", str.("abc"), %{"binary_as" => "str"}}
    ] ++
    binaries ++
    [
      {"atom", atom.("ok")},
      {"atom empty", atom.("")},
      {"atom in UTF-8", atom.("żółw")},
      {"atom of a module", atom.("Elixir.Snex")},
      {"atom of 255 characters", atom.(String.duplicate("a", 255))},
      {"atom of 255 characters of three bytes", atom.(String.duplicate("€", 255))},
      {"atoms met again", %{"list" => [atom.("a"), atom.("b"), atom.("a"), atom.("b"), nil]}},
      {"distinct atom", %{"distinct_atom" => "ok"}, %{"atom_as" => "distinct_atom"}},
      {"list empty", %{"list" => []}},
      {"list", %{"list" => [int.(1), str.("a"), nil]}},
      {"list of bytes", %{"list" => [int.(1), int.(2)]}},
      {"list of 1023", %{"repeat" => [int.(7), 1023]}},
      {"list of 1024", %{"repeat" => [int.(7), 1024]}},
      {"list of 1025", %{"repeat" => [int.(7), 1025]}},
      {"list of 2049", %{"repeat" => [nil, 2049]}},
      {"list nested", %{"list" => [%{"list" => [%{"list" => []}]}, %{"tuple" => [%{"map" => []}]}]}},
      {"map empty", %{"map" => []}},
      {"map", %{"map" => [[int.(1), str.("a")], [str.("b"), float.(2.5)]]}},
      {"map with an atom as key", %{"map" => [[atom.("a"), int.(1)]]}},
      {"map with a tuple as key", %{"map" => [[%{"tuple" => [int.(1), str.("a")]}, nil]]}},
      {"map nested", %{"map" => [[str.("a"), %{"map" => [[str.("b"), %{"list" => [%{"map" => []}]}]]}]]}},
      {"struct", %{"map" => [[atom.("__struct__"), atom.("Elixir.Snex.Vectors.Point")]]}},
      {"set empty", %{"set" => []}},
      {"set", %{"set" => [int.(1), int.(2), int.(3)]}},
      {"set of tuples", %{"set" => [%{"tuple" => [int.(1), str.("a")]}]}},
      {"frozenset empty", %{"frozenset" => []}, %{"set_as" => "frozenset"}},
      {"frozenset", %{"frozenset" => [int.(1)]}, %{"set_as" => "frozenset"}},
      {"improper list", %{"opaque" => etf.([1, 2 | 3])}},
      {"improper list after atoms",
       %{"list" => [atom.("a"), %{"opaque" => etf.([:a, :b | :c])}, atom.("b"), atom.("c")]}},
      {"bitstring", %{"opaque" => etf.(<<5::3>>)}},
      {"bitstring of many bits", %{"opaque" => etf.(<<1::1001>>)}},
      {"pid", %{"opaque" => etf.(local_pid)}},
      {"function of a module", %{"function" => etf.(&String.upcase/1)}},
      {"callback", %{"callback" => etf.(&String.upcase/1)}},
      {"term", %{"term" => etf.(%{a: [1, {:b}]})}},
      {"object without arguments", %{"object" => ["builtins", "list", []]}},
      {"object with an argument", %{"object" => ["builtins", "list", [%{"tuple" => [int.(1), int.(2)]}]]}}
    ] ++
    for size <- [0, 1, 2, 3, 4, 255, 256] do
      {"tuple of #{size}", %{"tuple" => List.duplicate(int.(7), size)}}
    end ++ structs ++ arrays

{:ok, inp} = Snex.Interpreter.start_link(init_script: Vectors.watch())

entries =
  for vector <- vectors do
    {name, value, opts} = if tuple_size(vector) == 3, do: vector, else: Tuple.insert_at(vector, 2, %{})
    entry = %{"name" => name, "value" => value, "opts" => opts}
    code = "return last[0], last[1], b''.join(encode(x))"

    {:ok, {pickle, buffers, encoded}} =
      Snex.pyeval(inp, code, %{"x" => Vectors.sent(value)}, Vectors.opts(entry))

    buffers = for {type, data} <- buffers, do: [type, text.(data)]

    fields = [
      {"name", name},
      {"value", value},
      {"opts", opts},
      {"pickle", text.(pickle)},
      {"buffers", buffers},
      {"etf", text.(encoded)}
    ]

    fields
    |> Enum.reject(fn {_, field} -> field in [%{}, []] end)
    |> Enum.map_join(",\n", fn {key, field} -> "   #{JSON.encode!(key)}: #{JSON.encode!(field)}" end)
  end

File.write!(Vectors.path(), ["[\n", Enum.map_intersperse(entries, ",\n", &["  {\n", &1, "\n  }"]), "\n]\n"])
IO.puts("#{length(entries)} vectors, #{File.stat!(Vectors.path()).size} bytes")
