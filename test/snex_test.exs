defmodule SnexTest do
  use Snex.Case, async: true

  doctest Snex

  test "the functions are make_env, destroy_env and pyeval, in all arities, and make_env! and pyeval!" do
    assert Snex.__info__(:functions) == [
             destroy_env: 1,
             make_env: 1,
             make_env: 2,
             make_env: 3,
             make_env!: 1,
             make_env!: 2,
             make_env!: 3,
             pyeval: 2,
             pyeval: 3,
             pyeval: 4,
             pyeval!: 2,
             pyeval!: 3,
             pyeval!: 4
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
