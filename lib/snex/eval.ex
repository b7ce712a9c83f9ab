defmodule Snex.Eval do
  @moduledoc false
  # Running code: the request, and the value that comes back.

  alias Snex.Code
  alias Snex.Error
  alias Snex.Native
  alias Snex.Request

  @doc """
  What the native code is told to run. `env_id` is `nil` for a copy of the root environment.
  """
  @spec request(non_neg_integer() | nil, Code.t(), map(), :loop | :thread) :: map()
  def request(env_id, %Code{} = code, vars, run) do
    {file, line} = Code.location(code)

    %{
      environment: env_id,
      source: code.src,
      file: file,
      line: line,
      vars: vars,
      thread: run == :thread
    }
  end

  @doc """
  Runs the request.
  """
  @spec run(pid(), map(), tuple(), Request.options()) :: {:ok, term()} | {:error, Error.t()}
  def run(interpreter, request, encoding, options) do
    submit =
      Request.submission(
        interpreter,
        &Native.request_eval/4,
        &Native.request_eval_dirty/4,
        request,
        encoding
      )

    with {:ok, value, _accepted} <- Request.call(interpreter, submit, options), do: {:ok, value}
  end
end
