defmodule Snex.Soak.Objects do
  @moduledoc """
  Calls by name, and objects: made, used, passed back, released, or left to the garbage collector.

  Each handle is counted when a caller gets it. When all callers have finished, no interpreter may have an object left.
  """

  alias Snex.Error
  alias Snex.Interpreter
  alias Snex.Object
  alias Snex.Serde
  alias Snex.Soak.Ledger
  alias Snex.Soak.Requests

  @init_script """
  class Box:
      def __init__(self, value):
          self.value = value

      def add(self, value):
          self.value += value
          return self.value

      def same(self, other, number):
          return number, self is other, self.value

  def echo(*values, **named):
      return values, named

  async def echo_later(*values):
      await asyncio.sleep(0.002)
      return values

  def boxes(values):
      return {"boxes": [Box(value) for value in values]}

  def apply(function, *values):
      return function(*values)
  """

  @doc """
  What every interpreter starts with, for these requests.
  """
  def init_script, do: @init_script

  @doc """
  How often each is made.
  """
  def weights, do: [by_name: 60, nowhere: 10, object: 60, objects: 10, callback: 20]

  # Whoever makes the call dies, or its interpreter ends.
  @opts [timeout: :infinity]

  @doc """
  As `Snex.Soak.Requests.make/3`.
  """
  def make(:by_name, home, inp) do
    x = :rand.uniform(1_000_000)

    ask(home, :by_name, &{{&1, x}, %{"y" => x}}, fn number ->
      Snex.call(inp, "echo", [number, x], [kwargs: [y: x]] ++ @opts)
    end)

    ask(home, :by_name, &{&1, [x]}, fn number -> Snex.call(inp, "echo_later", [number, [x]], @opts) end)
  end

  def make(:nowhere, home, inp) do
    ask(home, :nowhere, :none, fn _number -> Snex.call(inp, "os.path.jion", ["a"], @opts) end,
      allowed?: &(&1.code == :python_runtime_error and &1.reason =~ "Did you mean: 'join'?")
    )
  end

  def make(:object, home, inp) do
    x = :rand.uniform(1_000_000)

    with {:ok, box} <- made(home, :object, fn -> Snex.call(inp, "Box", [x], [returns: :object] ++ @opts) end) do
      ask(home, :object, fn _number -> x end, fn _number -> Object.get(box, "value", @opts) end, of: box)

      ask(home, :object, fn _number -> x + 1 end, fn _number -> Object.call(box, "add", [1], @opts) end,
        of: box
      )

      ask(home, :object, &{&1, true, x + 1}, fn number -> Object.call(box, "same", [box, number], @opts) end,
        of: box
      )

      if :rand.uniform(2) == 1, do: release(home, box)
    end
  end

  def make(:objects, home, inp) do
    values = Enum.to_list(1..:rand.uniform(200))
    all = fn -> Snex.call(inp, "boxes", [values], @opts) end

    with {:ok, %{"boxes" => boxes}} <- made(home, :objects, all, length(values)) do
      {box, value} = Enum.random(Enum.zip(boxes, values))
      ask(home, :objects, fn _number -> value end, fn _number -> Object.get(box, "value", @opts) end, of: box)
    end
  end

  def make(:callback, home, inp) do
    double = Serde.callback(fn x -> 2 * x end)

    # The node that has the function may be gone.
    ask(home, :callback, &(2 * &1), fn number -> Snex.call(inp, "apply", [double, number], @opts) end,
      allowed?: &match?(%Error{exception: %{type: "ElixirError"}}, &1)
    )
  end

  defp release(home, box) do
    :ok = Object.release(box)
    Ledger.note(home, {:handles, :released}, 1)

    ask(home, :object, :none, fn _number -> Object.get(box, "value", @opts) end,
      allowed?: &(&1.code == :object_not_found)
    )
  end

  # A call that returns handles.
  defp made(home, kind, call, count \\ 1) do
    Requests.entered(home, kind, fn number ->
      case call.() do
        {:ok, value} ->
          Ledger.note(home, {:handles, :made}, count)
          {:answered, value}

        {:error, error} ->
          Requests.failed(error, [], number)
      end
    end)
  end

  # A call with a right answer, if not `:none`. `opts` say which errors are right, `allowed?:`, and which object the call uses, `of:`.
  defp ask(home, kind, expected, call, opts \\ []) do
    Requests.entered(home, kind, fn number ->
      case call.(number) do
        {:ok, value} ->
          if expected != :none and value == expected.(number),
            do: :answered,
            else: {:wrong, "got #{inspect(value, limit: 5)}"}

        {:error, error} ->
          if opts[:allowed?] && opts[:allowed?].(error),
            do: {:failed, "#{error.code}: as expected"},
            else: failed(home, error, number, opts[:of])
      end
    end)
  end

  defp failed(home, error, number, box) do
    with {:wrong, message} <- Requests.failed(error, [], number, box) do
      if error.code == :object_not_found,
        do: Ledger.blame(home, :handles_lost, "call #{number}: #{message} from #{node()}")

      {:wrong, message}
    end
  end

  # ---- The end -------------------------------------------------------------------------------------

  @doc """
  How many objects an interpreter has: those that the VM knows of, or those in Python's own table, whichever are more.
  """
  def left_in(interpreter) do
    code = "from snex._eval.objects import table; return len(table)"

    with {:ok, kept} <- Snex.pyeval(interpreter, code, timeout: 60_000),
         do: max(kept, Interpreter.info(interpreter, 60_000).objects)
  end
end
