defmodule Snex.Trace do
  @moduledoc false
  # Trace context on its way to Python and back, where the application OpenTelemetry is in the VM: as a `traceparent` of the W3C,
  # https://www.w3.org/TR/trace-context/. Nobody here depends on it, and without it nothing is done.

  @compile {:no_warn_undefined, [:otel_ctx, :otel_propagator_trace_context]}
  @dialyzer {:no_unknown, traceparent: 0, attach: 1}

  @doc """
  The calling process's span, or `nil` outside of any.
  """
  @spec traceparent() :: String.t() | nil
  def traceparent do
    if present?() do
      context = :otel_ctx.get_current()
      set = fn name, value, found -> if name == "traceparent", do: value, else: found end
      :otel_propagator_trace_context.inject(context, nil, set, [])
    end
  end

  @doc """
  Makes what the calling process does a part of that span.
  """
  @spec attach(String.t() | nil) :: :ok
  def attach(nil), do: :ok

  def attach(traceparent) do
    if present?() do
      get = fn name, value -> if name == "traceparent", do: value, else: :undefined end
      context = :otel_ctx.get_current()

      :otel_ctx.attach(
        :otel_propagator_trace_context.extract(context, traceparent, fn _value -> [] end, get, [])
      )
    end

    :ok
  end

  # The module is loaded as soon as anyone begins a span.
  defp present?, do: :erlang.function_exported(:otel_tracer, :current_span_ctx, 1)
end
