defmodule Snex.Interpreter.Copy do
  @moduledoc false
  # The options of a copy: what it takes from its template, and what it may have of its own.

  alias Snex.Error
  alias Snex.Interpreter.Options
  alias Snex.Remote

  # What a copy takes from its template unless it is given.
  @inherited [
    :label,
    :init_script_timeout,
    :encoding_opts,
    :atoms,
    :eager_polyfill?,
    :output,
    :limits,
    :on_memory_limit,
    :allow,
    :allow_send,
    :max_in_flight,
    :on_stuck,
    :cleanup_timeout,
    :stop_timeout,
    :shared_memory,
    :port_opts
  ]

  # What a fork cannot change.
  @fixed [:python, :wrap_exec, :cd, :environment, :python_path, :port_opts, :shared_memory] ++
           Options.project_options()

  # The elements of `options.limits`.
  @limits [:memory, :cpu, :open_files, :nice, :reply]

  # How long a template may take to say what its options are, in ms. It does so at once.
  @patience 5_000

  @doc """
  The options of an interpreter, checked by now, where `opts` are those that were given: for a copy, with what it takes from
  its template, whose pid is put in the place of its name.
  """
  @spec options(Options.t(), keyword()) :: {:ok, Options.t()} | {:error, Error.t()}
  def options(%{template: nil, threads: :refuse} = options, _opts), do: {:ok, options}

  def options(%{template: nil}, _opts),
    do: raise(ArgumentError, "the option :threads needs the option :template, which is missing")

  def options(options, opts) do
    for name <- @fixed, Keyword.has_key?(opts, name) do
      raise ArgumentError,
            "the option #{inspect(name)} cannot be given to a copy, which takes it from its template"
    end

    with :ok <- check_system(),
         {:ok, template} <- locate(options.template),
         {:ok, known} <- ask(template) do
      inherited = Map.drop(known, Keyword.keys(opts))
      limits = limits(known.limits, options.limits, opts[:limits] || [])
      {:ok, options |> Map.merge(inherited) |> Map.merge(%{template: template, limits: limits})}
    end
  end

  @doc """
  What a template, with what Python says of itself, answers when it is asked for a copy: the options that the copy may take from it, or why it cannot have one.
  """
  @spec template(Options.t(), map()) :: {:ok, Options.t()} | {:error, String.t()}
  def template(%{template: template}, _python) when template != nil,
    do: {:error, "it is a copy itself; fork its template, #{inspect(template)}, instead"}

  def template(%{port_opts: %{use_stdio: true}}, _python),
    do: {:error, "it uses :use_stdio, and may run on another machine"}

  # `nil` while it starts: then the copy waits for it, and Python refuses.
  def template(_options, %{implementation: name}) when name not in [nil, "CPython"],
    do: {:error, "it runs #{name}, and a copy needs CPython"}

  def template(options, _python), do: {:ok, Map.take(options, @inherited)}

  @doc """
  Whether there are copies on this system.
  """
  @spec check_system() :: :ok | {:error, Error.t()}
  def check_system do
    case :os.type() do
      {:unix, :linux} ->
        :ok

      {_family, name} ->
        failed("a copy needs Linux, and this system is #{name}: start an interpreter instead")
    end
  end

  defp locate(server) do
    case Remote.locate(server) do
      pid when is_pid(pid) and node(pid) == node() ->
        {:ok, pid}

      nil ->
        failed("there is no template #{inspect(server)}")

      _elsewhere ->
        failed("the template #{inspect(server)} is on another node, where its copies have to be started")
    end
  end

  defp ask(template) do
    with {:error, reason} <- GenServer.call(template, :template, @patience),
         do: failed("#{inspect(template)} cannot be a template: #{reason}")
  catch
    :exit, {:timeout, _call} -> failed("the template #{inspect(template)} does not answer")
    :exit, _reason -> failed("the template #{inspect(template)} has ended")
  end

  # Each limit that is not given is the template's.
  defp limits(known, own, given) do
    given = for {name, _value} <- given, do: name

    [@limits, Tuple.to_list(known), Tuple.to_list(own)]
    |> Enum.zip_with(fn [name, theirs, ours] -> if name in given, do: ours, else: theirs end)
    |> List.to_tuple()
  end

  defp failed(reason), do: {:error, %Error{code: :call_failed, reason: reason}}
end
