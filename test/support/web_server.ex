defmodule Snex.WebServer do
  @moduledoc """
  An HTTP server on this machine, for tests: it reports each request to the process that started it.
  """

  @doc """
  Starts a server; returns its port, and its id for `stop_supervised!/1`. `answer` gets the first line of a request and returns the bytes of the answer, after
  which the connection is closed. The test's process gets `{:request, line}` for each.
  """
  def start!(answer) do
    test = self()
    ready = make_ref()

    # The socket belongs to the server: it is closed when that is stopped.
    ExUnit.Callbacks.start_supervised!(
      {Task,
       fn ->
         {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, packet: :line, active: false])
         {:ok, port} = :inet.port(listener)
         send(test, {ready, port})
         accept(listener, test, answer)
       end},
      id: {__MODULE__, ready}
    )

    receive do: ({^ready, port} -> %{port: port, id: {__MODULE__, ready}})
  end

  @doc """
  The bytes of an answer.
  """
  def answer(status, headers, body) do
    lines = for {name, value} <- [{"content-length", byte_size(body)} | headers], do: "#{name}: #{value}\r\n"
    ["HTTP/1.1 #{status}\r\nconnection: close\r\n", lines, "\r\n", body]
  end

  defp accept(listener, test, answer) do
    {:ok, socket} = :gen_tcp.accept(listener)
    {:ok, line} = :gen_tcp.recv(socket, 0)
    skip_headers(socket)
    line = String.trim(line)
    send(test, {:request, line})
    _ = :gen_tcp.send(socket, answer.(line))
    :gen_tcp.close(socket)
    accept(listener, test, answer)
  end

  defp skip_headers(socket) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, "\r\n"} -> :ok
      {:ok, _header} -> skip_headers(socket)
    end
  end
end
