defmodule Snex.Things do
  @moduledoc """
  Objects for tests, which tell how many of them Python still has.
  """

  alias Snex.Case
  alias Snex.Interpreter

  @doc """
  An init script whose `thing(**fields)` makes an object with these attributes.
  """
  def classes do
    """
    import asyncio, threading, weakref
    class Thing:
        def __init__(self, **fields): self.__dict__.update(fields)
        def same(self, other): return self is other
        def __call__(self, *args, **kwargs): return args, kwargs
    made = weakref.WeakSet()
    def thing(**fields):
        new = Thing(**fields)
        made.add(new)
        return new
    def same(one, other): return one is other
    """
  end

  @doc """
  Makes such an object.
  """
  def thing(where, fields \\ []), do: Snex.call!(where, "thing", [], kwargs: fields)

  @doc """
  Returns when Python keeps nothing for the VM any more, and no such object lives.
  """
  def assert_nothing_kept(inp) do
    # PyPy collects only when it is asked to.
    code = "import gc; gc.collect(); from snex._eval import objects; return len(objects.table), len(made)"
    Case.eventually(fn -> Snex.pyeval(inp, code, timeout: 60_000) == {:ok, {0, 0}} end)
    Case.eventually(fn -> Interpreter.info(inp).objects == 0 end)
  end
end
