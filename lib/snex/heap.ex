defmodule Snex.Heap do
  @moduledoc false
  # Room on the heap of the calling process for what it is about to make.
  #
  # A heap that has no room for a large term grows, and is copied each time. What `binary_to_term` makes is copied once: that is a
  # third of the time that it takes for maps, and nearly half of it for integers (bench/NOTES.md).

  # The most words: 64 MiB.
  @most 8 * 1024 * 1024

  @doc """
  Calls `fun`, with room for about so many words if the heap is small compared to that.
  """
  @spec with_room(non_neg_integer(), (-> result)) :: result when result: var
  def with_room(words, fun) do
    [min_heap_size: before, max_heap_size: max, total_heap_size: now] =
      Process.info(self(), [:min_heap_size, :max_heap_size, :total_heap_size])

    room = min(words, @most)

    # The VM would kill a process whose own limit is lower. To collect a large heap takes longer than to copy what is made.
    if max.size == 0 and room > 4 * now do
      Process.flag(:min_heap_size, room)
      # Heaps grow only then.
      :erlang.garbage_collect()

      try do
        fun.()
      after
        Process.flag(:min_heap_size, before)
      end
    else
      fun.()
    end
  end
end
