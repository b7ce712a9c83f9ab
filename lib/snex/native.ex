defmodule Snex.Native do
  @moduledoc false
  # Stubs of the NIFs in native/snex_nif, and nothing else: this module cannot be reloaded while the library is in use.

  alias Snex.Os

  @on_load :load

  @nifs [
    interpreter_start: 1,
    interpreter_open: 0,
    interpreter_stop: 2,
    interpreter_info: 1,
    interpreter_output: 1,
    output_read: 2,
    log_read: 1,
    print_read: 2,
    struct_plain: 1,
    handle_keep: 3,
    handle_destroy: 2,
    handle_release: 4,
    handle_proxy: 4,
    handle_drop_message: 1,
    request_eval: 4,
    request_eval_dirty: 4,
    request_invoke: 4,
    request_invoke_dirty: 4,
    request_make_env: 4,
    request_make_env_dirty: 4,
    request_forget: 3,
    stream_credit: 3,
    call_result: 5,
    call_result_dirty: 5,
    call_error: 4,
    call_begin: 3,
    call_end: 2,
    source_open: 1,
    source_begin: 2,
    source_close: 2,
    source_feed: 5,
    source_feed_dirty: 5,
    source_end: 3,
    pool_open: 3,
    pool_once: 1,
    pool_join: 2,
    pool_leave: 1,
    pool_member: 1,
    pool_idle: 1,
    pool_figures: 1,
    pool_load: 1,
    pool_take: 2,
    pool_enter: 2,
    pool_wait: 4,
    pool_forget: 1,
    pool_give_back: 1,
    pool_drain: 0,
    pool_close: 1,
    pool_bury: 2,
    pool_buried: 1,
    project_read: 1,
    project_rebase: 2,
    project_unbase: 2,
    project_has_member: 2,
    lock_locals: 1,
    lock_rebase: 3,
    resources_count: 0,
    panics: 0
  ]

  @spec load() :: :ok | {:error, term()}
  def load do
    :code.purge(__MODULE__)
    # Without native code, each function says why.
    if in_escript?(),
      do: :ok,
      else: :erlang.load_nif(:filename.join(:code.lib_dir(:snex), ~c"priv/native/snex_nif"), 0)
  end

  @spec interpreter_start(map()) :: :ok | {:error, String.t()}
  def interpreter_start(_options), do: not_loaded()

  @spec interpreter_open() :: :ok | :noproc
  def interpreter_open, do: not_loaded()

  @spec interpreter_stop(binary(), non_neg_integer()) :: :ok | :noproc
  # A start that failed for want of native code has nothing to stop.
  def interpreter_stop(_reason, _grace),
    do: if(in_escript?(), do: :noproc, else: not_loaded())

  @spec interpreter_info(pid()) ::
          {:ok, served :: non_neg_integer(), under_way :: non_neg_integer(),
           environments :: non_neg_integer(), objects :: non_neg_integer(), queued :: non_neg_integer(),
           {memory :: non_neg_integer(), shared_memory :: non_neg_integer() | nil}}
          | :noproc
  def interpreter_info(_interpreter), do: not_loaded()

  @spec interpreter_output(pid()) :: binary()
  def interpreter_output(_interpreter), do: not_loaded()

  @spec print_read(pid(), pos_integer()) :: :ok
  def print_read(_interpreter, _request), do: not_loaded()

  @spec struct_plain(module()) :: :ok
  def struct_plain(_module), do: not_loaded()

  @spec output_read(pid(), :stdout | :stderr) :: :ok
  def output_read(_interpreter, _stream), do: not_loaded()

  @spec log_read(pid()) :: :ok
  def log_read(_interpreter), do: not_loaded()

  @typep kind() :: :environment | :object

  @spec handle_keep(pid(), kind(), id :: pos_integer()) :: :ok
  def handle_keep(_interpreter, _kind, _id), do: not_loaded()

  @spec handle_destroy(pid(), environment :: pos_integer()) :: :ok
  def handle_destroy(_interpreter, _id), do: not_loaded()

  # The interpreter may be of another node.
  @spec handle_release(reference(), pid(), kind(), id :: pos_integer()) :: :ok
  def handle_release(_handle, _interpreter, _kind, _id), do: not_loaded()

  @spec handle_proxy(tracker :: pid(), holder :: pid(), ticket :: reference(), number :: non_neg_integer()) ::
          reference()
  def handle_proxy(_tracker, _holder, _ticket, _number), do: not_loaded()

  @spec handle_drop_message(reference()) :: {:snex_handle_dropped, holder :: pid(), key :: tuple()} | nil
  def handle_drop_message(_proxy), do: not_loaded()

  # Of two functions with and without `_dirty`, the one without takes only what `Snex.Serde.Weight` has found light.
  @spec request_eval(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_eval(_interpreter, _reference, _eval, _options), do: not_loaded()

  @spec request_eval_dirty(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_eval_dirty(_interpreter, _reference, _eval, _options), do: not_loaded()

  @spec request_invoke(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_invoke(_interpreter, _reference, _invoke, _options), do: not_loaded()

  @spec request_invoke_dirty(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_invoke_dirty(_interpreter, _reference, _invoke, _options), do: not_loaded()

  @spec request_make_env(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_make_env(_interpreter, _reference, _make, _options), do: not_loaded()

  @spec request_make_env_dirty(pid(), reference(), map(), tuple()) :: Snex.Request.outcome()
  def request_make_env_dirty(_interpreter, _reference, _make, _options), do: not_loaded()

  @spec request_forget(pid(), pos_integer(), boolean()) :: :ok
  def request_forget(_interpreter, _request, _cancel), do: not_loaded()

  @spec stream_credit(pid(), request :: pos_integer(), items :: pos_integer()) :: :ok
  def stream_credit(_interpreter, _request, _items), do: not_loaded()

  @spec call_result(pid(), reference(), non_neg_integer(), term(), tuple()) ::
          Snex.Request.outcome()
  def call_result(_interpreter, _reference, _call, _value, _options), do: not_loaded()

  @spec call_result_dirty(pid(), reference(), non_neg_integer(), term(), tuple()) ::
          Snex.Request.outcome()
  def call_result_dirty(_interpreter, _reference, _call, _value, _options), do: not_loaded()

  @spec call_error(pid(), reference(), non_neg_integer(), map()) ::
          Snex.Request.outcome()
  def call_error(_interpreter, _reference, _call, _failure), do: not_loaded()

  # Which process answers a call of Python's, until it has ended.
  @spec call_begin(pid(), process :: pid(), call :: pos_integer()) :: :ok
  def call_begin(_interpreter, _process, _call), do: not_loaded()

  @spec call_end(pid(), process :: pid()) :: :ok
  def call_end(_interpreter, _process), do: not_loaded()

  # A stream that Python iterates. The calling process gets `{:snex_pull, items}` and `:snex_close`.
  @spec source_open(pid()) :: {:ok, source :: pos_integer(), high :: pos_integer()} | :noproc
  def source_open(_interpreter), do: not_loaded()

  # The calling process makes its items, until `call_end/2`.
  @spec source_begin(pid(), source :: pos_integer()) :: :ok
  def source_begin(_interpreter, _source), do: not_loaded()

  @spec source_close(pid(), source :: pos_integer()) :: :ok
  def source_close(_interpreter, _source), do: not_loaded()

  @spec source_feed(pid(), reference(), source :: pos_integer(), [term()], tuple()) ::
          {:ok, bytes :: pos_integer()} | Snex.Request.outcome()
  def source_feed(_interpreter, _reference, _source, _items, _options), do: not_loaded()

  @spec source_feed_dirty(pid(), reference(), source :: pos_integer(), [term()], tuple()) ::
          {:ok, bytes :: pos_integer()} | Snex.Request.outcome()
  def source_feed_dirty(_interpreter, _reference, _source, _items, _options), do: not_loaded()

  @spec source_end(pid(), source :: pos_integer(), Snex.Failure.t() | nil) :: :ok
  def source_end(_interpreter, _source, _failure), do: not_loaded()

  # What concerns a pool is for its process, unless it takes the pool's pid; see `pool.rs`.
  @spec pool_open(pos_integer(), limit :: non_neg_integer(), patience :: non_neg_integer() | nil) :: :ok
  def pool_open(_concurrency, _limit, _patience), do: not_loaded()

  @spec pool_once(pos_integer()) :: :ok
  def pool_once(_at_a_time), do: not_loaded()

  @spec pool_join(pid(), most_calls :: non_neg_integer()) :: :ok | :noproc
  def pool_join(_interpreter, _most_calls), do: not_loaded()

  @spec pool_leave(pid()) :: :ok
  def pool_leave(_interpreter), do: not_loaded()

  @spec pool_member(pid()) ::
          {running :: non_neg_integer() | nil, calls :: non_neg_integer(), may_be_chosen :: boolean()}
  def pool_member(_interpreter), do: not_loaded()

  @spec pool_idle(pid()) :: boolean()
  def pool_idle(_interpreter), do: not_loaded()

  @spec pool_figures(pid()) ::
          {at_a_time :: non_neg_integer(), waiting :: non_neg_integer(), once? :: boolean()}
  def pool_figures(_pool), do: not_loaded()

  @spec pool_load(pid()) :: {calls :: non_neg_integer(), at_a_time :: pos_integer()} | nil
  def pool_load(_pool), do: not_loaded()

  @spec pool_take(pid(), alone :: boolean()) :: {pid(), slot :: reference()} | :busy | :noproc
  def pool_take(_pool, _alone), do: not_loaded()

  @spec pool_enter(pid(), interpreter :: pid()) :: {pid(), slot :: reference()} | :noproc
  def pool_enter(_pool, _interpreter), do: not_loaded()

  @spec pool_wait(pid(), reference(), alone :: boolean(), callers :: [pid()] | nil) ::
          {pid(), slot :: reference()}
          | {:waiting, ticket :: reference(), patience :: non_neg_integer() | nil}
          | {:overloaded, limit :: non_neg_integer(), patience :: non_neg_integer() | nil}
          | :draining
          | :noproc
  def pool_wait(_pool, _reference, _alone, _callers), do: not_loaded()

  @spec pool_forget(ticket :: reference()) :: boolean()
  def pool_forget(_ticket), do: not_loaded()

  @spec pool_give_back(slot :: reference()) :: boolean()
  def pool_give_back(_slot), do: not_loaded()

  @spec pool_drain() :: :ok
  def pool_drain, do: not_loaded()

  @spec pool_close(reason :: binary()) :: :ok
  def pool_close(_reason), do: not_loaded()

  @spec pool_bury(pid(), why :: String.t()) :: :ok
  def pool_bury(_interpreter, _why), do: not_loaded()

  @spec pool_buried(pid()) :: String.t() | nil
  def pool_buried(_interpreter), do: not_loaded()

  @typep at(value) :: {line :: pos_integer(), column :: pos_integer(), value}

  @doc false
  # What the text of a pyproject.toml says: what is wrong with it, the keys at its top level and in [project] (each with its
  # table, the top level being ""), its dependency strings, the project's name, and the patterns of a workspace's members and of
  # those that are excluded.
  @spec project_read(binary()) :: %{
          problems: [at(String.t())],
          keys: [at({table :: String.t(), key :: String.t()})],
          dependencies: [at(String.t())],
          name: String.t() | nil,
          workspace: {[String.t()], [String.t()]} | nil
        }
  def project_read(_toml), do: not_loaded()

  @doc false
  # The text of a pyproject.toml or uv.toml with its relative paths behind a prefix, and back again.
  @spec project_rebase(String.t(), prefix :: String.t()) :: String.t()
  def project_rebase(_toml, _prefix), do: not_loaded()

  @spec project_unbase(String.t(), prefix :: String.t()) :: String.t()
  def project_unbase(_toml, _prefix), do: not_loaded()

  @doc false
  # Whether the way from the root of a workspace, which has this pyproject.toml, leads to a member.
  @spec project_has_member(root :: binary(), way :: String.t()) :: boolean()
  def project_has_member(_root, _way), do: not_loaded()

  @doc false
  # The packages of a uv.lock that come from folders, without that of the lock itself.
  @spec lock_locals(String.t()) :: [{name :: String.t(), folder :: String.t()}]
  def lock_locals(_lock), do: not_loaded()

  @doc false
  # A uv.lock with relative paths that start from the folder `to`, and not from `from`.
  @spec lock_rebase(String.t(), from :: String.t(), to :: String.t()) :: String.t()
  def lock_rebase(_lock, _from, _to), do: not_loaded()

  @spec resources_count() :: %{atom() => non_neg_integer()}
  def resources_count, do: not_loaded()

  @spec panics() :: non_neg_integer()
  def panics, do: not_loaded()

  # As `Snex.Os.in_escript?/0`, which need not be there yet when this module is compiled, and loaded.
  defp in_escript?, do: not File.dir?(:code.lib_dir(:snex))

  defp not_loaded do
    if in_escript?(), do: raise(Os.escript()), else: :erlang.nif_error(:not_loaded)
  end
end
