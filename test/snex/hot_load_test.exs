defmodule Snex.HotLoadTest do
  # Not async: it starts a VM of its own, for what is loaded there would be the code of other tests here.
  use Snex.Case

  alias Snex.OtherVM

  @moduletag timeout: 300_000

  # A process that runs or waits in the code of a module is killed when the module is loaded for the second time.
  test "every module can be loaded three times under traffic, and no process of an interpreter dies" do
    vm =
      OtherVM.start(~S"""
      Process.flag(:trap_exit, true)
      {:ok, inp} = Snex.Interpreter.start_link(init_script: "x = 20")
      # An environment that the tracker holds, as for another node.
      tracker = Snex.Remote.Tracker.pid()
      ticket = make_ref()
      options = %{deadline: :infinity, on_timeout: :cancel, output: nil}
      make = [inp, Snex.Env, :make, [[], %{}, Snex.Serde.options!([])], options]
      {:offered, {:ok, env}, ^tracker, handles} = apply(Snex.Remote, :serve, [ticket, self(), :infinity | make])
      proxies = Snex.Remote.Tracker.claim(tracker, ticket, handles)

      # A cast that takes longer than all the loads.
      defmodule Parked do
        def park(test) do
          send(test, {:parked, self()})
          receive do: (:never -> :ok)
        end
      end

      test = self()
      cast = "await snex.cast('Elixir.Parked', 'park', [test])"
      {:ok, nil} = Snex.pyeval(inp, cast, %{"test" => test})
      parked = receive do: ({:parked, pid} -> pid)

      own = for pid <- Process.info(inp, :links) |> elem(1), pid != test, do: pid
      os_pid = Snex.Interpreter.os_pid(inp)
      observed = [inp, tracker, parked | own]
      monitors = for pid <- observed, do: Process.monitor(pid)

      traffic = fn ->
        code = "print('hello')\nreturn x + await Elixir.Enum.sum([1, 21])"
        {:ok, 42} = Snex.pyeval(inp, code, output: :discard)
        {:ok, made} = Snex.make_env(inp)
        {:ok, nil} = Snex.pyeval(made, "y = 1")
        :ok = Snex.destroy_env(made)
      end

      # Goes on until the end, and says when it has done a whole round after being asked.
      callers =
        for _ <- 1..4 do
          spawn_link(fn ->
            Stream.repeatedly(fn ->
              traffic.()
              receive do: ({:round, from} -> send(from, :round)), after: (0 -> :ok)
            end)
            |> Stream.run()
          end)
        end

      rounds = fn ->
        for _ <- 1..2, caller <- callers do
          send(caller, {:round, test})
          receive do: (:round -> :ok)
        end
      end

      Application.load(:snex)
      {:ok, modules} = :application.get_key(:snex, :modules)

      loaded =
        for _ <- 1..3 do
          rounds.()

          results =
            for module <- modules do
              # What still runs in old code is killed, as it is when a release is upgraded by force.
              :code.purge(module)
              {module, :code.load_file(module)}
            end

          for {module, result} <- results, result != {:module, module}, do: {module, result}
        end

      rounds.()
      dead = for monitor <- monitors, do: receive(do: ({:DOWN, ^monitor, _, pid, reason} -> {pid, reason}), after: (0 -> nil))
      ended = receive do: ({:EXIT, _, _} = exit -> exit), after: (0 -> nil)
      held = {map_size(proxies), Snex.Remote.Tracker.counts().handles, Snex.pyeval(env, "return x")}
      tell.({loaded, Enum.reject(dead, &is_nil/1), ended, os_pid == Snex.Interpreter.os_pid(inp), held})
      hear.()
      """)

    assert {loaded, dead, ended, true, {1, 1, {:ok, 20}}} = OtherVM.await(vm)
    assert dead == []
    assert ended == nil
    # The library stays loaded, and its module as it is.
    assert loaded == List.duplicate([{Snex.Native, {:error, :on_load_failure}}], 3)
    OtherVM.say(vm)
  end
end
