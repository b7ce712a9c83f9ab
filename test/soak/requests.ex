defmodule Snex.Soak.Requests do
  @moduledoc """
  What callers ask of interpreters: each sort of request, and which answers are right.

  An answer has the number of its request in it. An error is right when the request asks for one, and always when the
  interpreter, its node or the caller may have been killed meanwhile, which each of these says by itself.
  """

  alias Snex.Env
  alias Snex.Error
  alias Snex.Serde
  alias Snex.Soak.Ledger
  alias Snex.Soak.Maps
  alias Snex.Soak.Objects
  alias Snex.Soak.Own
  alias Snex.Soak.Streams

  @doc """
  What every interpreter starts with.
  """
  def init_script do
    """
    import asyncio, ctypes, os, subprocess, sys, time

    def own_child(mark):
        # One that has left Python's session, in which only what names its tree is left of the surroundings.
        env = {"SNEX_TREE": os.environ["SNEX_TREE"]}
        return subprocess.Popen([mark, "1000000"], executable="sleep", env=env, start_new_session=True)

    #{Objects.init_script()}
    #{Streams.init_script()}
    #{Maps.init_script()}
    #{Own.init_script()}
    """
  end

  # How often each is made, besides those of `Objects`, `Streams`, `Maps` and `Own`.
  @weights [
    small: 220,
    asleep: 120,
    environment: 120,
    copy: 60,
    kept: 40,
    list: 60,
    large: 30,
    calls_back: 90,
    sends: 70,
    casts: 30,
    prints: 40,
    thread: 20,
    raises: 50,
    no_result: 10,
    no_variable: 10,
    no_environment: 10,
    no_syntax: 5,
    times_out: 8,
    left_behind: 3,
    blocks: 2,
    child: 2
  ]

  @objects Keyword.keys(Objects.weights())
  @streams Keyword.keys(Streams.weights())
  @maps Keyword.keys(Maps.weights())
  @own Keyword.keys(Own.weights())
  @dealt List.to_tuple(
           for {kind, weight} <-
                 @weights ++ Objects.weights() ++ Streams.weights() ++ Maps.weights() ++ Own.weights(),
               _ <- 1..weight,
               do: kind
         )

  @doc """
  One of them, as the process's random numbers choose.
  """
  def choose, do: elem(@dealt, :rand.uniform(tuple_size(@dealt)) - 1)

  @doc """
  As `choose/0`, of those that can be made to any interpreter.
  """
  def choose_shared, do: choose_other_than(@own)

  # Made of several calls that need the same interpreter, or of very many.
  @several [:environment, :copy, :kept, :no_environment, :object, :objects, :mapped, :child]

  @doc """
  As `choose/0`, of those that are a single call.
  """
  def choose_single, do: choose_other_than(@several)

  defp choose_other_than(kinds) do
    kind = choose()
    if kind in kinds, do: choose_other_than(kinds), else: kind
  end

  # A call that has waited for most of its time is refused instead of being begun.
  @too_late [:response_timeout, :overloaded]

  @doc """
  Makes a request of a sort to an interpreter. `home` is the node with the books.
  """
  def make(:small, home, inp) do
    x = :rand.uniform(1_000_000)
    ask(home, :small, inp, "return (number, x)", %{"x" => x}, &{&1, x})
  end

  def make(:asleep, home, inp) do
    ask(home, :asleep, inp, "await asyncio.sleep(s); return [number]", %{"s" => :rand.uniform() / 50}, &[&1])
  end

  def make(:environment, home, inp) do
    with {:ok, env} <- make_env(home, inp, %{"count" => 0}) do
      for n <- 1..:rand.uniform(4) do
        ask(home, :environment, env, "count += 1; return (number, count)", %{}, &{&1, n})
      end

      # Others are left to the garbage collector.
      if :rand.uniform(4) == 1, do: Snex.destroy_env(env)
    end
  end

  def make(:copy, home, inp) do
    with {:ok, env} <- make_env(home, inp, %{"a" => 1, "b" => 2}),
         {:ok, copy} <- make_env(home, %{"b" => 3}, from: {env, only: ["a"]}) do
      ask(home, :copy, copy, "a += b; return (number, a)", %{}, &{&1, 4})
      ask(home, :copy, env, "return (number, a)", %{}, &{&1, 1})
    end
  end

  def make(:kept, home, inp) do
    with {:ok, env} <- make_env(home, inp, %{"a" => 1}) do
      Env.disable_gc(env)
      :erlang.garbage_collect()
      ask(home, :kept, env, "return (number, a)", %{}, &{&1, 1})
      Snex.destroy_env(env)
      fails(home, :kept, env, "return a", [:env_not_found])
    end
  end

  def make(:list, home, inp) do
    list = Enum.to_list(1..:rand.uniform(5_000))
    ask(home, :list, inp, "return (number, values[::-1])", %{"values" => list}, &{&1, Enum.reverse(list)})
  end

  def make(:large, home, inp) do
    binary = :binary.copy(<<:rand.uniform(255)>>, 200_000 + :rand.uniform(1_500_000))
    vars = %{"value" => Serde.binary(binary)}

    ask(
      home,
      :large,
      inp,
      "return {'number': number, 'value': value}",
      vars,
      &%{"number" => &1, "value" => binary}
    )
  end

  def make(:calls_back, home, inp) do
    code = "return await snex.call('Elixir.Snex.Soak.Ledger', 'effect', [number], node=home)"
    vars = %{"home" => home}
    # Its node may be gone, or the one that it calls.
    allowed = [{:python_runtime_error, "ElixirError"}]

    ask(home, :calls_back, inp, code, vars, &{:seen, &1}, allowed, fn number ->
      if Ledger.effects(home, number) == 0, do: "has not called"
    end)
  end

  def make(:casts, home, inp) do
    code = "await snex.cast('Elixir.Snex.Soak.Ledger', 'effect', [number], node=home); return number"
    ask(home, :casts, inp, code, %{"home" => home}, & &1)
  end

  def make(:sends, home, inp) do
    code = "await snex.send(to, (snex.Atom('soak_said'), number)); return number"

    ask(home, :sends, inp, code, %{"to" => self()}, & &1, [], fn number ->
      receive do
        {:soak_said, ^number} ->
          Process.put({:said, number}, true)
          nil
      after
        30_000 -> "has not sent its message"
      end
    end)
  end

  def make(:prints, home, inp) do
    lines = :rand.uniform(200)
    code = "for n in range(lines): print(number, n)\nreturn number"
    collector = spawn_link(fn -> collect([]) end)

    ask(home, :prints, inp, code, %{"lines" => lines}, & &1, [], [output: collector], fn number ->
      printed = for n <- 0..(lines - 1), into: "", do: "#{number} #{n}\n"
      send(collector, {:show, self(), byte_size(printed)})

      receive do
        {^collector, ^printed} -> nil
        {^collector, _other} -> "has printed something else"
      after
        30_000 -> "has not printed everything"
      end
    end)

    Process.unlink(collector)
    Process.exit(collector, :kill)
  end

  def make(:thread, home, inp) do
    code = "await asyncio.to_thread(time.sleep, 0.005); return await asyncio.to_thread(lambda: number)"
    ask(home, :thread, inp, code, %{}, & &1)
  end

  def make(:raises, home, inp),
    do: fails(home, :raises, inp, "raise LookupError(number)", [{:number, "LookupError"}])

  def make(:no_result, home, inp),
    do: fails(home, :no_result, inp, "return [object()]", [{:python_runtime_error, "TypeError"}])

  def make(:no_variable, home, inp) do
    vars = %{"x" => <<"no text", 255>>}
    fails(home, :no_variable, inp, "return x", [{:python_runtime_error, "UnicodeDecodeError"}], vars)
  end

  def make(:no_environment, home, inp) do
    with {:ok, env} <- make_env(home, inp, %{}) do
      Snex.destroy_env(env)
      fails(home, :no_environment, env, "return 1", [:env_not_found])
    end
  end

  def make(:no_syntax, home, inp),
    do:
      fails(home, :no_syntax, inp, "return = #{:rand.uniform(10_000)}", [
        {:python_runtime_error, "SyntaxError"}
      ])

  def make(:times_out, home, inp) do
    code = "await asyncio.sleep(1000)"
    fails(home, :times_out, inp, code, @too_late, %{}, timeout: :rand.uniform(50))
  end

  def make(:left_behind, home, inp) do
    code = "await asyncio.sleep(0.1); return number"
    opts = [timeout: 20, on_timeout: :leave]
    # On a busy machine the answer is there before anybody looks at the clock.
    ask(home, :left_behind, inp, code, %{}, & &1, @too_late, opts, fn _number -> nil end)
  end

  def make(:blocks, home, inp) do
    code = Enum.random(["time.sleep(1000)", "while True: pass", "subprocess.run(['sleep', '1000'])"])
    fails(home, :blocks, inp, code, @too_late, %{}, timeout: 20)
  end

  def make(kind, home, inp) when kind in @objects, do: Objects.make(kind, home, inp)
  def make(kind, home, inp) when kind in @streams, do: Streams.make(kind, home, inp)
  def make(kind, home, inp) when kind in @maps, do: Maps.make(kind, home, inp)
  def make(kind, home, inp) when kind in @own, do: Own.make(kind, home, inp)

  # The interpreter has it, until its own end.
  def make(:child, home, inp) do
    code = "own_child(mark) if number % 2 else subprocess.Popen(['sleep', '1000000']); return number"
    vars = %{"mark" => System.fetch_env!("SNEX_SOAK_MARK")}
    ask(home, :child, inp, code, vars, & &1)
  end

  @doc """
  Code that ends its interpreter, or holds it up for good, and how the call ends.
  """
  def deadly(:exits, home, inp), do: fails(home, :exits, inp, "os._exit(3)", [])
  def deadly(:aborts, home, inp), do: fails(home, :aborts, inp, "os.abort()", [])
  def deadly(:crashes, home, inp), do: fails(home, :crashes, inp, "ctypes.string_at(0)", [])

  # Only for interpreters that are replaced then.
  def deadly(:stuck, home, inp),
    do: fails(home, :stuck, inp, "sum(range(10 ** 15))", @too_late, %{}, timeout: 100)

  # ---- Asking ----------------------------------------------------------------------------------------

  # Asks for an answer, which is that of `expected` for the number of this request. `after_answer` looks at what else should
  # have come of it, and returns what is wrong.
  defp ask(
         home,
         kind,
         where,
         code,
         vars,
         expected,
         allowed \\ [],
         opts \\ [],
         after_answer \\ fn _number -> nil end
       )

  defp ask(home, kind, where, code, vars, expected, allowed, after_answer, _none)
       when is_function(after_answer),
       do: ask(home, kind, where, code, vars, expected, allowed, [], after_answer)

  defp ask(home, kind, where, code, vars, expected, allowed, opts, after_answer) do
    entered(home, kind, fn number ->
      # It is answered, or its interpreter ends.
      result =
        Snex.pyeval(where, code, Map.put(vars, "number", number), Keyword.put_new(opts, :timeout, :infinity))

      expected = expected.(number)

      case result do
        {:ok, ^expected} -> if wrong = after_answer.(number), do: {:wrong, wrong}, else: :answered
        {:ok, other} -> {:wrong, "expected #{brief(expected)}, got #{brief(other)}"}
        {:error, error} -> failed(error, allowed, number, where)
      end
    end)
  end

  # Asks for an error.
  defp fails(home, kind, where, code, allowed, vars \\ %{}, opts \\ [timeout: :infinity]) do
    entered(home, kind, fn number ->
      case Snex.pyeval(where, code, Map.put(vars, "number", number), opts) do
        {:ok, other} ->
          # What has been dropped may be there if its node did not hear of it.
          if cut?(where),
            do: {:failed, "not dropped: its node was cut off"},
            else: {:wrong, "expected an error, got #{brief(other)}"}

        {:error, error} ->
          failed(error, allowed, number, where)
      end
    end)
  end

  defp make_env(home, inp_or_vars, vars_or_opts) do
    entered(home, :make_env, fn number ->
      case Snex.make_env(inp_or_vars, vars_or_opts) do
        {:ok, env} -> {:answered, env}
        # Has a timeout of its own, which an interpreter that is stuck, or a busy machine, may exceed.
        {:error, %Error{code: code}} when code in @too_late -> {:failed, "#{code}: make_env"}
        {:error, error} -> failed(error, [], number, with({env, _only} <- vars_or_opts[:from], do: env))
      end
    end)
  end

  @doc """
  Writes the request down, makes it, and writes down what came of it. `request` gets the number, and returns `:answered`, or with
  a value that is returned; `{:failed, cause}`, or `{:wrong, what}`.
  """
  def entered(home, kind, request) do
    number = Ledger.open(home, kind)

    case request.(number) do
      {:answered, value} ->
        Ledger.close(home, number, :answered)
        {:ok, value}

      {:wrong, what} ->
        Ledger.blame(home, :wrong, "call #{number} (#{kind}): #{what}")
        Ledger.close(home, number, :wrong)

      outcome ->
        Ledger.close(home, number, outcome)
    end
  end

  @doc """
  What came of a request that has failed: whether with one of the `allowed` errors, or one that the faults explain. `thing` is the
  environment or object that it has used, if there is one.
  """
  def failed(error, allowed, number, thing \\ nil)

  def failed(%Error{code: :python_runtime_error} = error, allowed, number, _thing) do
    type = error.exception.type

    cond do
      {:python_runtime_error, type} in allowed -> {:failed, type}
      {:number, type} in allowed and error.reason == "#{number}" -> {:failed, type}
      true -> {:wrong, Exception.message(error)}
    end
  end

  def failed(%Error{code: code} = error, allowed, _number, thing) do
    cond do
      # A pool that changes fails no call.
      match?({:shutdown, :recycled}, error.reason) -> {:wrong, Exception.message(error)}
      code in allowed or code in [:interpreter_exited, :call_failed] -> {:failed, cause(error)}
      why = code in [:env_not_found, :object_not_found] && gone(thing) -> {:failed, "#{code}: #{why}"}
      true -> {:wrong, Exception.message(error)}
    end
  end

  @doc """
  Why an environment or object cannot be there any more, in words of the report; `nil` if it should be.
  """
  def gone(%{interpreter: interpreter} = thing) do
    cond do
      cut?(thing) -> "its node was cut off"
      ended?(interpreter) -> "its interpreter has ended"
      true -> nil
    end
  end

  def gone(_no_thing), do: nil

  @doc """
  To be called before things are made that `gone/1` may be asked for.
  """
  def remember_cuts, do: Process.put(:cuts, Ledger.cuts())

  defp cut?(%{interpreter: interpreter}),
    do: node(interpreter) != node() and Ledger.cuts() != Process.get(:cuts)

  defp cut?(_no_thing), do: false

  # How long one may take to end whose end is known, in ms.
  @patience 60_000

  @doc """
  Whether an interpreter has ended, if there was one, or is about to.
  """
  def ended?(nil), do: true

  def ended?(interpreter) do
    monitor = Process.monitor(interpreter)

    receive do
      {:DOWN, ^monitor, :process, ^interpreter, _reason} -> true
    after
      @patience ->
        Process.demonitor(monitor, [:flush])
        false
    end
  end

  # A row of the report.
  defp cause(%Error{code: :interpreter_exited, exception: %{signal: signal}}),
    do: "interpreter_exited: #{signal}"

  defp cause(%Error{code: code, reason: nil}), do: "#{code}"
  defp cause(%Error{code: code}) when code in [:env_not_found, :object_not_found, :overloaded], do: "#{code}"
  defp cause(%Error{code: code, reason: {:nodedown, _node}}), do: "#{code}: nodedown"
  defp cause(%Error{code: code, reason: {:exit_status, _status}}), do: "#{code}: exit_status"
  defp cause(%Error{code: code, reason: reason}), do: "#{code}: #{brief(reason)}"

  defp brief(term), do: term |> inspect(limit: 5, printable_limit: 60) |> String.slice(0, 120)

  defp collect(printed) do
    receive do
      {:snex_output, _interpreter, :stdout, bytes} ->
        collect([printed | bytes])

      {:show, to, size} ->
        if IO.iodata_length(printed) >= size do
          send(to, {self(), IO.iodata_to_binary(printed)})
        else
          receive do
            {:snex_output, _interpreter, :stdout, bytes} ->
              send(self(), {:show, to, size})
              collect([printed | bytes])
          end
        end
    end
  end
end
