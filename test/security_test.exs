defmodule Snex.SecurityTest do
  use Snex.Case

  alias Snex.Markdown

  @page Path.expand("../docs/security.md", __DIR__)
  @moduletag timeout: 60_000
  @moduletag :capture_log

  test "each block of the page about security works, after the ones before it" do
    blocks = Markdown.elixir_blocks(@page)
    assert length(blocks) == 4
    bindings = Markdown.evaluate(blocks, @page)
    # The one that is not started here; its options are good.
    assert {[], %{allow: [], atoms: :existing}} = Interpreter.Options.split!(bindings[:options])
    assert {"docker", _args} = bindings[:confined].("python3", ["-m", "snex", "0", "1"])
    start_supervised!(bindings[:child])
    script = "import os; return key, os.environ['API_KEY'], 'HOME' in os.environ"
    assert Snex.pyeval(Shop.Python, script) == {:ok, {"none", "none", false}}
    for name <- [:python, :careful], do: Interpreter.stop(bindings[name])
  end

  describe "the page says what does not protect:" do
    test "who may call a function that calls what it is given may call everything" do
      inp = start_interpreter!(allow: [{Enum, :map, 2}])
      assert {:error, %Error{}} = Snex.pyeval(inp, "return await Elixir.String.upcase('a')")

      # `&String.upcase/1`, as external term.
      code = "return await Elixir.Enum.map(['a'], snex.Term(upcase))"
      vars = %{"upcase" => Serde.binary(:erlang.term_to_binary(&String.upcase/1))}
      assert Snex.pyeval(inp, code, vars) == {:ok, ["A"]}
    end

    test "without :allow_send, a message may be sent to any process, and servers obey" do
      inp = start_interpreter!(allow: :none)
      {:ok, agent} = Agent.start_link(fn -> 1 end)

      code = "await snex.send(agent, (snex.Atom('$gen_cast'), (snex.Atom('cast'), snex.Term(change))))"
      change = :erlang.term_to_binary({__MODULE__, :changed, []})
      {:ok, nil} = Snex.pyeval(inp, code, %{"agent" => agent, "change" => Serde.binary(change)})
      assert Agent.get(agent, & &1) == :changed
    end

    test "limits are each process's own" do
      {_name, python} = hd(pythons())
      inp = start_interpreter!(python: python, limits: [memory: 500_000_000])

      code =
        "import subprocess, sys; return subprocess.run([sys.executable, '-c', 'bytes(350_000_000)']).returncode"

      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, "x = bytes(200_000_000)") == {:ok, nil}
      assert Snex.pyeval(env, code, %{}, timeout: 60_000) == {:ok, 0}
    end
  end

  @doc false
  def changed(_state), do: :changed
end
