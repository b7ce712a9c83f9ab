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
  @spec request(non_neg_integer() | nil, Code.t(), map()) :: map()
  def request(env_id, %Code{} = code, vars) do
    %{
      environment: env_id,
      source: source(code.src),
      file: code.file,
      line: code.line,
      vars: vars
    }
  end

  defp source(source) when is_binary(source), do: source
  defp source(source), do: IO.iodata_to_binary(source)

  @doc """
  Runs the request.
  """
  @spec run(pid(), map(), tuple(), Request.deadline()) :: {:ok, term()} | {:error, Error.t()}
  def run(interpreter, request, options, deadline) do
    submit = fn
      reference, :normal -> Native.request_eval(interpreter, reference, request, options)
      reference, :dirty -> Native.request_eval_dirty(interpreter, reference, request, options)
    end

    with {:ok, body, _accepted} <- Request.call(interpreter, submit, deadline),
         do: Error.decode(body)
  end
end
