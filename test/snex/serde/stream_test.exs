defmodule Snex.Serde.StreamTest do
  use Snex.Case, async: true

  @moduletag :interpreter

  # How code takes all items of `rows`: on the event loop, with and without waiting there, and on other threads.
  @ways %{
    "async for" => "return [row async for row in rows]",
    "for on the event loop's thread" => "return list(rows)",
    "async for after for" => "return [next(rows), *[row async for row in rows]]",
    "for after async for" => "return [await anext(rows), *rows]",
    "for in asyncio.to_thread" => "import asyncio\nreturn await asyncio.to_thread(list, rows)",
    "for in a thread of the user's" => """
    import asyncio, threading
    taken, loop, done = [], asyncio.get_running_loop(), asyncio.Event()
    def run():
        taken.extend(rows)
        loop.call_soon_threadsafe(done.set)
    threading.Thread(target=run).start()
    await done.wait()
    return taken
    """,
    "async for in a second event loop" => """
    import asyncio
    async def run():
        return [row async for row in rows]
    return await asyncio.to_thread(asyncio.run, run())
    """,
    "for in a second event loop" => """
    import asyncio
    async def run():
        return list(rows)
    return await asyncio.to_thread(asyncio.run, run())
    """
  }

  describe "a stream" do
    test "is iterated in every way that Python has", %{inp: inp} do
      for {way, code} <- @ways, count <- [1, 2, 255, 256, 257, 3_000] do
        rows = Serde.stream(Stream.map(1..count, &{&1, "row"}))

        assert {way, Snex.pyeval(inp, code, %{"rows" => rows})} ==
                 {way, {:ok, Enum.map(1..count, &{&1, "row"})}}
      end
    end

    test "is iterated in a worker thread, by for and by async for", %{inp: inp} do
      for code <- ["return list(rows)", "return [row async for row in rows]"], count <- [1, 3_000] do
        rows = Serde.stream(1..count)
        assert Snex.pyeval(inp, code, %{"rows" => rows}, run: :thread) == {:ok, Enum.to_list(1..count)}
      end
    end

    test "of nothing has no items", %{inp: inp} do
      code = "return list(rows), [row async for row in rows], list(rows)"
      assert Snex.pyeval(inp, code, %{"rows" => Serde.stream([])}) == {:ok, {[], [], []}}
    end

    test "without an end is taken from as long as Python likes", %{inp: inp} do
      for code <- [
            "for n in rows:\n  if n == 1000: break\nreturn n, next(rows)",
            "async for n in rows:\n  if n == 1000: break\nreturn n, await anext(rows)"
          ] do
        rows = Serde.stream(Stream.iterate(0, &(&1 + 1)))
        assert Snex.pyeval(inp, code, %{"rows" => rows}) == {:ok, {1000, 1001}}
      end
    end
  end
end
