defmodule Snex.Serde.NativeTimeTest do
  # Not async: see `Snex.Peer`.
  use Snex.Case

  alias Snex.Native
  alias Snex.Peer

  @native [encoding_opts: [structs_as: :native]]

  # The tests have an encoder for it, which comes first. Only on the other node nobody is asked whether there is one.
  test "with structs_as: :native, a Time without an encoder is a datetime.time, and comes back the same" do
    Peer.start_distribution!()
    {node, _control} = Peer.start_node!()
    inp = Peer.start_interpreter!(node)
    times = [~T[01:02:03], ~T[01:02:03.000004], ~T[23:59:59.9]]
    assert Snex.pyeval(inp, "return repr(x[1])", %{"x" => times}, @native) == {:ok, "datetime.time(1, 2, 3)"}
    :ok = :erpc.call(node, Native, :struct_plain, [Time])

    assert Snex.pyeval(inp, "return repr(x), x", %{"x" => times}, @native) ==
             {:ok,
              {"[datetime.time(1, 2, 3), datetime.time(1, 2, 3, 4), datetime.time(23, 59, 59, 900000)]",
               [~T[01:02:03], ~T[01:02:03.000004], ~T[23:59:59.900000]]}}

    other = %{~T[01:02:03] | calendar: Other}
    assert {:error, %Error{reason: reason}} = Snex.pyeval(inp, "return x", %{"x" => [other]}, @native)
    assert reason =~ "the variable x[0]: its calendar is not Calendar.ISO: see Time.convert/2"
  end
end
