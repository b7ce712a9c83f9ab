defmodule Snex.Eval do
  @moduledoc false
  # Running code: the request, and the value that comes back.

  alias Snex.Code
  alias Snex.Error
  alias Snex.Native
  alias Snex.Request
  alias Snex.Serde.Weight
  alias Snex.Trace

  @doc """
  What the native code is told to run. `env_id` is `nil` for a copy of the root environment.
  """
  @spec request(non_neg_integer() | nil, Code.t(), map(), map()) :: map()
  def request(env_id, %Code{} = code, vars, how) do
    {file, line} = Code.location(code)

    %{
      environment: env_id,
      source: code.src,
      file: file,
      line: line,
      vars: vars,
      run: how.run,
      returns: how.returns,
      callers: Process.get(:"$callers"),
      traceparent: Trace.traceparent()
    }
  end

  @doc """
  Runs the request. For `Snex.Remote.run/5`: with the handles in the result.
  """
  @spec run(pid(), map(), tuple(), Request.options()) :: {{:ok, term()} | {:error, Error.t()}, [reference()]}
  def run(interpreter, request, encoding, options) do
    light? = Weight.light?([request.source, request.file | request.vars])

    submit = fn reference, encoded ->
      nif = Request.choose(light?, encoded, &Native.request_eval/4, &Native.request_eval_dirty/4)
      # What is left of it when the frame is made: a caller may have had to wait for the start, or for room.
      request = Map.put(request, :time, Request.time(options))
      nif.(interpreter, reference, request, put_elem(encoding, 3, encoded))
    end

    Request.result(interpreter, submit, options)
  end
end
