defmodule SnexTest do
  use Snex.Case, async: true

  doctest Snex

  test "the functions are make_env, destroy_env, pyeval, call, get, map and stream, in all arities, and those that raise" do
    assert Snex.__info__(:functions) == [
             call: 2,
             call: 3,
             call: 4,
             call!: 2,
             call!: 3,
             call!: 4,
             destroy_env: 1,
             get: 2,
             get: 3,
             get!: 2,
             get!: 3,
             make_env: 1,
             make_env: 2,
             make_env: 3,
             make_env!: 1,
             make_env!: 2,
             make_env!: 3,
             map: 3,
             map: 4,
             map!: 3,
             map!: 4,
             pyeval: 2,
             pyeval: 3,
             pyeval: 4,
             pyeval!: 2,
             pyeval!: 3,
             pyeval!: 4,
             stream: 2,
             stream: 3,
             stream: 4
           ]
  end

  test "each public function has an example, which runs as a doctest" do
    for module <- [Snex, Snex.Env] do
      {:docs_v1, _, :elixir, _, _, _, docs} = Code.fetch_docs(module)

      for {{:function, name, arity}, _, _, doc, _} <- docs, doc != :hidden do
        assert %{"en" => text} = doc, "#{inspect(module)}.#{name}/#{arity} has no documentation"
        assert text =~ "iex> ", "#{inspect(module)}.#{name}/#{arity} has no example"
      end
    end
  end
end
