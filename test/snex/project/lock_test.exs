defmodule Snex.Project.LockTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Snex.Project.Lock

  @moduletag :tmp_dir

  test "holders take turns", %{tmp_dir: tmp_dir} do
    path = Path.join(tmp_dir, "a/lock")
    inside = :counters.new(1, [])

    with_io(fn ->
      1..4
      |> Enum.map(fn n ->
        Task.async(fn ->
          Lock.with_lock(path, "something", fn ->
            :counters.add(inside, 1, 1)
            assert :counters.get(inside, 1) == 1
            File.write!(Path.join(tmp_dir, "work"), "#{n}")
            :counters.sub(inside, 1, 1)
            n
          end)
        end)
      end)
      |> Task.await_many(30_000)
    end)
    |> then(fn {results, _output} -> assert results == [1, 2, 3, 4] end)

    refute File.exists?(path)
  end

  test "is released when the work raises", %{tmp_dir: tmp_dir} do
    path = Path.join(tmp_dir, "lock")
    assert_raise RuntimeError, "oops", fn -> Lock.with_lock(path, "x", fn -> raise "oops" end) end
    assert Lock.with_lock(path, "x", fn -> :again end) == :again
  end

  test "one that nobody holds any more is taken over", %{tmp_dir: tmp_dir} do
    path = Path.join(tmp_dir, "lock")
    # What a VM leaves behind that was killed while it held the lock.
    File.mkdir_p!(path)
    File.touch!(Path.join(path, "12345-1"))

    {result, output} = with_io(fn -> Lock.with_lock(path, "the thing", fn -> :mine end) end)
    assert result == :mine
    assert output =~ "Waiting for another process that is making the thing"
    assert File.ls!(tmp_dir) == []
  end
end
