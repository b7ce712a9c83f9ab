defmodule Snex.TraceTest do
  # Not async: while there is a module `:otel_tracer`, the spans of all calls in this VM travel; and the variable that says where
  # caches go is exchanged.
  use Snex.Case

  import ExUnit.CaptureIO

  alias Snex.Trace

  @compile {:no_warn_undefined, :otel_ctx}

  @moduletag :slow
  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  # Python's side is the real one.
  @toml """
  [project]
  name = "traced"
  version = "0.1.0"
  requires-python = ">=3.10"
  dependencies = ["opentelemetry-sdk"]
  """

  @init """
  from opentelemetry import trace
  from opentelemetry.sdk.trace import TracerProvider
  trace.set_tracer_provider(TracerProvider())
  """

  @parent "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
  @trace_id "0123456789abcdef0123456789abcdef"

  # There are no packages from Hex here. This stands for those functions of the application `:opentelemetry_api` that are used: a
  # context is the `traceparent` of its span.
  @modules [
    otel_tracer: quote(do: def(current_span_ctx(context), do: context)),
    otel_ctx:
      quote do
        def get_current, do: Process.get(:otel_ctx)
        def attach(context), do: Process.put(:otel_ctx, context)
      end,
    otel_propagator_trace_context:
      quote do
        def inject(nil, carrier, _set, _options), do: carrier
        def inject(context, carrier, set, _options), do: set.("traceparent", context, carrier)

        def extract(context, carrier, _keys, get, _options) do
          # As that application does: of the flags it knows one.
          with <<"00-", _ids::binary-size(49), "-0", flag>> = span when flag in ~c"01" <-
                 get.("traceparent", carrier),
               :undefined <- get.("tracestate", carrier),
               do: span,
               else: (_ -> context)
        end
      end
  ]

  setup %{tmp_dir: folder} = context do
    exchange_cache(folder)

    if context[:present] do
      for {name, body} <- @modules do
        Module.create(name, [quote(do: @moduledoc(false)), body], Macro.Env.location(__ENV__))
      end

      on_exit(fn ->
        for {name, _body} <- @modules do
          :code.purge(name)
          :code.delete(name)
          :code.purge(name)
        end
      end)
    end

    options = [pyproject_toml: @toml, python_preference: :system, init_script: @init]
    {{:ok, inp}, _output} = with_io(fn -> Snex.Interpreter.start_link(options) end)
    {:ok, inp: inp}
  end

  # The ids of the span that code in Python begins, or is called from.
  @current "s = trace.get_current_span().get_span_context()\nreturn f'{s.trace_id:032x}-{s.span_id:016x}'"
  @nobody "00000000000000000000000000000000-0000000000000000"
  @caller "0123456789abcdef0123456789abcdef-0123456789abcdef"

  def traceparent, do: Trace.traceparent()

  describe "with OpenTelemetry on both sides" do
    @describetag :present

    test "code runs within the caller's span, and only as long as the caller has one", %{inp: inp} do
      {:ok, env} = Snex.make_env(inp)
      assert Snex.pyeval(env, @current) == {:ok, @nobody}
      :otel_ctx.attach(@parent)
      {:ok, nil} = Snex.pyeval(env, "def current():\n  #{String.replace(@current, "\n", "; ")}")
      {:ok, nil} = Snex.pyeval(env, "async def later(): return current()")

      for options <- [[], [run: :thread]] do
        assert Snex.pyeval(env, @current, options) == {:ok, @caller}

        assert Snex.pyeval(env, "import asyncio; await asyncio.sleep(0)\n" <> @current, options) ==
                 {:ok, @caller}

        assert Snex.call(env, "current", [], options) == {:ok, @caller}
        assert Snex.call(env, "later", [], options) == {:ok, @caller}
      end

      :otel_ctx.attach(nil)
      assert Snex.pyeval(env, @current) == {:ok, @nobody}
      assert Snex.pyeval(env, "await asyncio.sleep(0)\n" <> @current) == {:ok, @nobody}
    end

    test "what Python calls runs within the span that it was called from", %{inp: inp} do
      :otel_ctx.attach(@parent)

      code = """
      with trace.get_tracer("test").start_as_current_span("here") as span:
          here = span.get_span_context()
          mine = f"00-{here.trace_id:032x}-{here.span_id:016x}-01"
          return mine, await snex.call("Elixir.Snex.TraceTest", "traceparent", []), await f()
      """

      assert {:ok, {"00-" <> rest = mine, mine, mine}} =
               Snex.pyeval(inp, code, %{"f" => &__MODULE__.traceparent/0})

      # Its own span, in the caller's trace.
      assert String.starts_with?(rest, @trace_id)
      refute mine == @parent
    end
  end

  test "without it in the VM, nothing travels", %{inp: inp} do
    assert Trace.traceparent() == nil
    assert Snex.pyeval(inp, @current) == {:ok, @nobody}

    code =
      "with trace.get_tracer('t').start_as_current_span('s'):\n  return await snex.call('Elixir.Snex.TraceTest', 'traceparent', [])"

    assert Snex.pyeval(inp, code) == {:ok, nil}
  end

  test "without it in Python, nothing is imported" do
    inp = start_interpreter!()
    code = "import sys; return [name for name in sys.modules if name.startswith('opentelemetry')]"
    assert Snex.pyeval(inp, code) == {:ok, []}
  end
end
