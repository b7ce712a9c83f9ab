defmodule Snex.Object do
  @moduledoc """
  A reference to an object that stays in Python: a data frame, a model, a connection.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> word = "abracadabra"
      iex> {:ok, counter} = Snex.call(py, "collections.Counter", [word], returns: :object)
      iex> Snex.Object.call(counter, "most_common", [1])
      {:ok, [{"a", 5}]}
      iex> counter["b"]
      2

  `Snex.call/4` and `Snex.get/3` return an object for each value that has no form in Elixir and, with
  `returns: :object`, for any value. In Python, `snex.keep(x)` makes an object of `x`.

  An object is a value like any other: in variables or arguments, however deeply nested, it becomes the very same object
  in Python. It belongs to one interpreter; using it in another raises an `ArgumentError`. `copy/3` copies an object to
  another interpreter.

  Objects are garbage collected like environments (see `Snex.Env`): soon after the last reference on the node that
  received the object is gone, Python releases it; no further call is needed. An object that is returned twice is one
  object with two handles. `release/1` releases it at once, and `disable_gc/1` keeps it until then.

  After the object is released or its interpreter has ended, functions that use it return
  `{:error, %Snex.Error{code: :object_not_found}}`.

  `inspect/1` does not call Python: it shows the type and the number, `#Snex.Object<collections.Counter 17>`.
  `to_string/1` returns Python's `str()`. `object[key]` works as in Python, but returns `nil` where Python raises a
  `KeyError` or an `IndexError`. An iterable object is an `Enumerable`; see `stream/2`.

  Functions whose name ends in `!` return the value itself, and raise the `Snex.Error`. All functions that call Python
  take the options of `Snex.call/4`.
  """

  @behaviour Access

  alias Snex.CallOptions
  alias Snex.Env
  alias Snex.Error
  alias Snex.Handle
  alias Snex.Interpreter
  alias Snex.Invoke
  alias Snex.Pool.Choice
  alias Snex.Serde

  @typedoc "Opaque except for `:id` and `:type`, the name of the object's type."
  @type t() :: %__MODULE__{id: pos_integer(), type: String.t(), interpreter: pid(), handle: reference()}

  @type result(value) :: {:ok, value} | {:error, Error.t()}

  @typedoc "Options of `Snex.call/4`."
  @type opts() :: [Snex.call_opt()]

  # See `Snex.Handle`.
  @enforce_keys [:id, :type, :interpreter, :handle]
  defstruct [:id, :type, :interpreter, :handle]

  # Functions of ours in Python.
  @access "snex._eval.access"

  @doc """
  Calls the object, or the method that `path` leads to.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["b", "a"]], returns: :object)
      iex> Snex.Object.call(words, "sort", [], kwargs: [reverse: false])
      {:ok, nil}
      iex> Snex.Object.value(words)
      {:ok, ["a", "b"]}
      iex> {:ok, power} = Snex.get(py, "pow", returns: :object)
      iex> Snex.Object.call(power, [2, 10])
      {:ok, 1024}
  """
  @spec call(t(), String.t() | nil, [term()], opts()) :: result(term())
  def call(object, path, args, opts)
  def call(%__MODULE__{} = object, nil, args, opts), do: invoke(object, "", args, opts)
  def call(%__MODULE__{} = object, path, args, opts), do: invoke(object, Invoke.name!(path), args, opts)

  @doc "`call/4` with `path` or `opts` left out."
  @spec call(t(), String.t() | [term()] | nil, [term()] | opts()) :: result(term())
  def call(object, args, opts) when is_list(args), do: call(object, nil, args, opts)
  def call(object, path, args), do: call(object, path, args, [])

  @doc "`call/4` with arguments alone."
  @spec call(t(), [term()]) :: result(term())
  def call(object, args), do: call(object, nil, args, [])

  @doc "As `call/4`."
  @spec call!(t(), String.t() | nil, [term()], opts()) :: term()
  def call!(object, path, args, opts), do: Error.unwrap!(call(object, path, args, opts))

  @doc "As `call/3`."
  @spec call!(t(), String.t() | [term()] | nil, [term()] | opts()) :: term()
  def call!(object, path_or_args, args_or_opts), do: Error.unwrap!(call(object, path_or_args, args_or_opts))

  @doc "As `call/2`."
  @spec call!(t(), [term()]) :: term()
  def call!(object, args), do: Error.unwrap!(call(object, args))

  @doc """
  Returns an attribute, or what a dotted path of attributes leads to.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, half} = Snex.call(py, "fractions.Fraction", [1, 2], returns: :object)
      iex> Snex.Object.get(half, "denominator")
      {:ok, 2}
      iex> Snex.Object.get!(half, "numerator.real")
      1
  """
  @spec get(t(), String.t(), opts()) :: result(term())
  def get(%__MODULE__{} = object, path, opts \\ []),
    do: gone(Invoke.get(object.interpreter, object, Invoke.name!(path), CallOptions.get!(opts)), object)

  @doc "As `get/3`."
  @spec get!(t(), String.t(), opts()) :: term()
  def get!(object, path, opts \\ []), do: Error.unwrap!(get(object, path, opts))

  @doc """
  Sets an attribute, and returns `:ok` or an error.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, env} = Snex.make_env(py)
      iex> {:ok, point} = Snex.call(env, "types.SimpleNamespace", [], returns: :object)
      iex> Snex.Object.put(point, "x", 1)
      :ok
      iex> Snex.Object.get(point, "x")
      {:ok, 1}
  """
  @spec put(t(), String.t(), term(), opts()) :: :ok | {:error, Error.t()}
  def put(%__MODULE__{} = object, path, value, opts \\ []),
    do: done(access(object, "put", [object, Invoke.name!(path), value], opts))

  @doc "As `put/4`."
  @spec put!(t(), String.t(), term(), opts()) :: :ok
  def put!(object, path, value, opts \\ []), do: Error.unwrap!(put(object, path, value, opts))

  @doc """
  Returns the item at a key or an index, as `object[key]` does in Python.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["a", "b"]], returns: :object)
      iex> Snex.Object.item(words, -1)
      {:ok, "b"}
      iex> {:error, error} = Snex.Object.item(words, 2)
      iex> error.reason
      "list index out of range"
  """
  @spec item(t(), term(), opts()) :: result(term())
  def item(%__MODULE__{} = object, key, opts \\ []),
    do: access(object, {"_operator", "getitem"}, [object, key], opts)

  @doc "As `item/3`."
  @spec item!(t(), term(), opts()) :: term()
  def item!(object, key, opts \\ []), do: Error.unwrap!(item(object, key, opts))

  @doc """
  Sets the item at a key or an index, and returns `:ok` or an error.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["a", "b"]], returns: :object)
      iex> Snex.Object.put_item(words, 0, "c")
      :ok
      iex> Snex.Object.value(words)
      {:ok, ["c", "b"]}
  """
  @spec put_item(t(), term(), term(), opts()) :: :ok | {:error, Error.t()}
  def put_item(%__MODULE__{} = object, key, value, opts \\ []),
    do: done(access(object, {"_operator", "setitem"}, [object, key, value], opts))

  @doc "As `put_item/4`."
  @spec put_item!(t(), term(), term(), opts()) :: :ok
  def put_item!(object, key, value, opts \\ []), do: Error.unwrap!(put_item(object, key, value, opts))

  @doc """
  Returns the object as an Elixir value.

  It returns an error if the object, or something in it, has no form in Elixir.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["a", "b"]], returns: :object)
      iex> Snex.Object.value(words)
      {:ok, ["a", "b"]}
  """
  @spec value(t(), opts()) :: result(term())
  def value(%__MODULE__{} = object, opts \\ []) do
    opts = CallOptions.get!(Keyword.put_new(opts, :returns, :value))
    gone(Invoke.get(object.interpreter, object, "", opts), object)
  end

  @doc "As `value/2`."
  @spec value!(t(), opts()) :: term()
  def value!(object, opts \\ []), do: Error.unwrap!(value(object, opts))

  @doc """
  Returns Python's `repr()`.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, half} = Snex.call(py, "fractions.Fraction", [1, 2], returns: :object)
      iex> {Snex.Object.repr(half), Snex.Object.str(half)}
      {{:ok, "Fraction(1, 2)"}, {:ok, "1/2"}}
  """
  @spec repr(t(), opts()) :: result(String.t())
  def repr(%__MODULE__{} = object, opts \\ []), do: access(object, {"builtins", "repr"}, [object], opts)

  @doc "As `repr/2`."
  @spec repr!(t(), opts()) :: String.t()
  def repr!(object, opts \\ []), do: Error.unwrap!(repr(object, opts))

  @doc """
  Returns Python's `str()`; see `repr/2`.
  """
  @spec str(t(), opts()) :: result(String.t())
  def str(%__MODULE__{} = object, opts \\ []), do: access(object, {"builtins", "str"}, [object], opts)

  @doc "As `str/2`."
  @spec str!(t(), opts()) :: String.t()
  def str!(object, opts \\ []), do: Error.unwrap!(str(object, opts))

  @doc """
  Returns the name of the object's type, with its module unless that is `builtins`.

  It does not call Python.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, half} = Snex.call(py, "fractions.Fraction", [1, 2], returns: :object)
      iex> Snex.Object.type(half)
      "fractions.Fraction"
  """
  @spec type(t()) :: String.t()
  def type(%__MODULE__{type: type}), do: type

  @doc """
  Returns Python's `len()`.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["a", "b"]], returns: :object)
      iex> Snex.Object.length(words)
      {:ok, 2}
  """
  @spec length(t(), opts()) :: result(non_neg_integer())
  def length(%__MODULE__{} = object, opts \\ []), do: access(object, {"builtins", "len"}, [object], opts)

  @doc "As `length/2`."
  @spec length!(t(), opts()) :: non_neg_integer()
  def length!(object, opts \\ []), do: Error.unwrap!(length(object, opts))

  @doc """
  Returns a stream of the items of an iterable object.

  It takes the options of `Snex.stream/4`. Items that have no form in Elixir stay in Python, as with `returns: :auto`.

  An object is also an `Enumerable` itself, with default options: `Enum.to_list(object)`, `for item <- object`.
  `Enum.count/1` uses Python's `len()` if the object has one, and `Enum.member?/2` uses Python's `in`.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, numbers} = Snex.call(py, "range", [10, 20], returns: :object)
      iex> Snex.Object.stream(numbers, demand: 10) |> Enum.take(2)
      [10, 11]
      iex> for n <- numbers, n > 17, do: n
      [18, 19]
      iex> {Enum.count(numbers), 12 in numbers, 20 in numbers}
      {10, true, false}
  """
  @spec stream(t(), [Snex.stream_opt()]) :: Enumerable.t()
  def stream(%__MODULE__{} = object, opts \\ []) do
    explain = fn error ->
      {:error, error} = gone({:error, error}, object)
      error
    end

    Invoke.stream(object.interpreter, object, "", nil, CallOptions.stream!(opts, :auto), explain)
  end

  @doc """
  Copies the object into another interpreter, or into that of an environment, on any node.

  The object is pickled in Python. Large buffers, such as those of arrays, travel beside the pickle as they are.

      iex> {:ok, one} = Snex.Interpreter.start_link()
      iex> {:ok, other} = Snex.Interpreter.start_link()
      iex> {:ok, half} = Snex.call(one, "fractions.Fraction", [1, 2], returns: :object)
      iex> {:ok, copy} = Snex.Object.copy(half, other)
      iex> Snex.Object.str(copy)
      {:ok, "1/2"}
  """
  @spec copy(t(), Env.t() | Interpreter.server(), opts()) :: result(t())
  def copy(%__MODULE__{} = object, to, opts \\ []) do
    with {:ok, {pickle, buffers}} <- access(object, "dumps", [object], Keyword.put(opts, :returns, :value)) do
      args = [Serde.binary(pickle), for(buffer <- buffers, do: Serde.binary(buffer, :bytearray))]
      opts = CallOptions.call!(Keyword.put(opts, :returns, :object))
      Invoke.call(to, @access, "loads", args, opts)
    end
  end

  @doc "As `copy/3`."
  @spec copy!(t(), Env.t() | Interpreter.server(), opts()) :: t()
  def copy!(object, to, opts \\ []), do: Error.unwrap!(copy(object, to, opts))

  @doc """
  Releases the object now, even if something still refers to this handle.

  Works from any node. Returns `:ok` even if the object is already gone. In Python, the object lives as long as
  something there, or another handle, refers to it.

      iex> {:ok, py} = Snex.Interpreter.start_link()
      iex> {:ok, words} = Snex.call(py, "list", [["a", "b"]], returns: :object)
      iex> Snex.Object.release(words)
      :ok
      iex> {:error, error} = Snex.Object.length(words)
      iex> error.code
      :object_not_found
  """
  @spec release(t()) :: :ok
  def release(%__MODULE__{} = object), do: Handle.release(object)

  @doc """
  Keeps the object until `release/1`, even if nothing refers to it any longer.

  Returns the object. Raises `ArgumentError` on any node other than the one that received it: only that node counts the
  references.
  """
  @spec disable_gc(t()) :: t()
  def disable_gc(%__MODULE__{} = object) do
    Handle.keep(object)
    object
  end

  # `object[key]`.
  @doc false
  @impl Access
  def fetch(%__MODULE__{} = object, key) do
    case item(object, key) do
      {:ok, value} -> {:ok, value}
      {:error, %Error{exception: %{type: type}}} when type in ["KeyError", "IndexError"] -> :error
      {:error, error} -> raise error
    end
  end

  @doc false
  @impl Access
  def get_and_update(object, _key, _function), do: raise(ArgumentError, in_place(object))

  @doc false
  @impl Access
  def pop(object, _key), do: raise(ArgumentError, in_place(object))

  defp in_place(object),
    do:
      "#{inspect(object)} cannot be updated like an Elixir value: Snex.Object.put_item/3 changes it in place"

  @doc false
  # Python's `in`.
  @spec contains(t(), term()) :: result(boolean())
  def contains(object, value), do: access(object, {"_operator", "contains"}, [object, value], [])

  @doc false
  # The error of a call that uses an object which is not there any more.
  @spec not_found(t()) :: Error.t()
  def not_found(object), do: %Error{code: :object_not_found, reason: "#{inspect(object)} was released"}

  defp invoke(object, path, args, opts) do
    opts = CallOptions.call!(opts)
    gone(Invoke.call(object.interpreter, object, path, Invoke.args!(args), opts), object)
  end

  defp access(object, {module, name}, args, opts) do
    gone(Invoke.call(object.interpreter, module, name, args, CallOptions.call!(opts)), object)
  end

  defp access(object, name, args, opts), do: access(object, {@access, name}, args, opts)

  defp gone({:error, %Error{details: %{fate: why}}}, object), do: {:error, Choice.lost(object, why)}

  defp gone({:error, %Error{code: :call_failed, reason: :noproc}}, object) do
    reason = "#{inspect(object)} is gone: its interpreter #{inspect(object.interpreter)} has ended"
    {:error, %Error{code: :object_not_found, reason: reason}}
  end

  defp gone(result, _object), do: result

  defp done({:ok, _nil}), do: :ok
  defp done(error), do: error

  defimpl Inspect do
    def inspect(object, _options), do: "#Snex.Object<#{object.type} #{object.id}>"
  end

  defimpl Enumerable do
    alias Snex.Error

    def reduce(object, acc, fun), do: Enumerable.reduce(Snex.Object.stream(object), acc, fun)

    def count(object) do
      case Snex.Object.length(object) do
        # It has none, or none that is known.
        {:error, %Error{exception: %{type: "TypeError"}}} -> {:error, __MODULE__}
        result -> {:ok, Error.unwrap!(result)}
      end
    end

    def member?(object, value), do: {:ok, Error.unwrap!(Snex.Object.contains(object, value))}
    def slice(_object), do: {:error, __MODULE__}
  end

  defimpl String.Chars do
    def to_string(object), do: Snex.Object.str!(object)
  end
end
