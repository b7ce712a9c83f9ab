defmodule Snex.ErrorTest do
  use ExUnit.Case, async: true

  alias Snex.Error

  test "every code reads well" do
    messages = %{
      %Error{code: :response_timeout} => "Python did not answer in time",
      %Error{code: :init_script_timeout} => "Python did not start in time",
      %Error{code: :env_not_found, reason: "no environment 7"} => "env_not_found: no environment 7",
      %Error{code: :call_failed, reason: :shutdown} => "call_failed: :shutdown",
      %Error{code: :call_failed, reason: :noproc} => "there is no such interpreter, or it is gone",
      %Error{code: :interpreter_exited, reason: {:exit_status, 1}} => "Python exited with status 1",
      %Error{code: :internal_error, reason: "x"} => "internal_error: x"
    }

    for {error, message} <- messages, do: assert(Exception.message(error) == message)
  end

  test "an error from Python that is none becomes an internal error" do
    assert %Error{code: :internal_error, reason: reason} =
             Error.from_python(:erlang.term_to_binary(%{"code" => "x"}))

    assert reason =~ ~s(%{"code" => "x"})
    assert %Error{code: :internal_error} = Error.from_python("garbage")
  end
end
