defmodule Snex.Serde.Decoder do
  @moduledoc false
  # Terms from Python, decoded where they are needed: `binary_to_term` yields.

  alias Snex.Arrow
  alias Snex.Error
  alias Snex.Heap
  alias Snex.Object
  alias Snex.Remote
  alias Snex.Serde.Parts

  require Parts

  @typedoc """
  The body of a frame: a term in external format, perhaps with its handles. In the term, the place of each is a tuple with a mark,
  the index in that list, and the name of the object's type. See `content.rs`.
  """
  @type content() :: binary() | {binary(), handles()}
  # Number 0 stands for no object, but says that there is a `Snex.Arrow` in the term. A binary is memory that Python has handed over.
  @type handles() :: [{id :: pos_integer(), handle :: reference() | binary()} | {0, nil}]

  # No value of Python's has a bitstring in it, unless it came from here. Nor has a place any atom: `binary_to_term` takes a lock for
  # each, pauses after so many values and not after so much time, and would hold a scheduler for longer than it may.
  @mark <<"snex.Object", 1::1>>

  @doc """
  How Python lays out the place of a handle: the bytes before the index, before the name of the type, and behind it.
  """
  @spec place_layout() :: {binary(), binary(), binary()}
  def place_layout do
    <<131, mark::binary>> = :erlang.term_to_binary(@mark)
    {<<104, 3, mark::binary>>, "", ""}
  end

  @doc """
  Decodes what `interpreter` has sent. With `:safe`, no atom is made. Returns the handles in it as well.
  """
  @spec decode(content(), [:safe], pid()) :: {:ok, term(), [reference()]} | {:error, Error.t()}
  def decode({body, handles}, options, interpreter) do
    with {:ok, term, parts} <- read(body, options) do
      places = {List.to_tuple(handles), parts, frames?(handles)}

      {:ok, fill(term, places, interpreter),
       for({_id, handle} when is_reference(handle) <- handles, do: handle)}
    end
  rescue
    # Explorer cannot read it.
    error -> {:error, %Error{code: :call_failed, reason: error}}
  end

  def decode(body, options, _interpreter) do
    with {:ok, term} <- decode(body, options), do: {:ok, term, []}
  end

  @doc """
  Decodes the elements of a list, as `decode/3`, as far as that can be done.
  """
  @spec decode_some(content(), [:safe], pid()) :: {[term()], [reference()]}
  def decode_some({body, handles}, options, interpreter) do
    places = {List.to_tuple(handles), {}, frames?(handles)}
    {elements, _none} = decode_some(body, options, interpreter)

    {fill_some(elements, places, interpreter),
     for({_id, handle} when is_reference(handle) <- handles, do: handle)}
  end

  def decode_some(<<131, ?l, count::32, rest::binary>>, options, _interpreter),
    do: {elements(count, rest, [:used | options]), []}

  def decode_some(_other, _options, _interpreter), do: {[], []}

  defp elements(0, _rest, _options), do: []
  # See below.
  defp elements(_count, <<80, _::binary>>, _options), do: []

  defp elements(count, rest, options) do
    {element, used} = :erlang.binary_to_term(<<131, rest::binary>>, options)
    [element | elements(count - 1, binary_slice(rest, (used - 1)..-1//1), options)]
  rescue
    ArgumentError -> []
  end

  @doc """
  Decodes a term without handles.
  """
  @spec decode(binary(), [:safe]) :: {:ok, term()} | {:error, Error.t()}
  def decode(body, options) do
    case read(body, options) do
      {:ok, term, {}} -> {:ok, term}
      {:ok, term, parts} -> {:ok, fill(term, {{}, parts, false}, nil)}
      {:error, error} -> {:error, error}
    end
  end

  # The term with marks, and the parts of the body that belong there.
  defp read(body, options)

  # Python compresses nothing. Memory would be taken for whatever length such a term claims.
  defp read(<<131, 80, _::binary>> = body, _options) do
    {:error, internal("a term from Python is compressed: #{inspect(body, limit: 64)}")}
  end

  # A binary is a part of what has arrived. `binary_to_term` would copy it.
  defp read(<<131, 109, size::32, value::binary-size(size)>>, _options) when size > 64,
    do: {:ok, value, {}}

  defp read(body, options) do
    {small, parts} = Parts.split(body)
    {:ok, to_term(small, options), parts}
  rescue
    ArgumentError ->
      why = if :safe in options, do: ", perhaps because it names an atom that does not exist"
      {:error, internal("a term from Python cannot be decoded#{why}: #{inspect(body, limit: 64)}")}
  end

  # Bodies of such sizes are worth room on the heap.
  @worth (256 * 1024)..(16 * 1024 * 1024)

  defp to_term(body, options) when byte_size(body) in @worth,
    do: Heap.with_room(words(body), fn -> :erlang.binary_to_term(body, options) end)

  defp to_term(body, options), do: :erlang.binary_to_term(body, options)

  # About so many words become of a body. Most terms take up to half a word per byte: integers, floats, short texts and maps of them.
  # For lists of smaller ones, there is at least a list, and each element has at least a byte.
  defp words(<<131, ?l, count::32, _::binary>> = body),
    do: max(2 * min(count, byte_size(body)), div(byte_size(body), 2))

  defp words(body), do: div(byte_size(body), 2)

  # Whether frames of data become Explorer's. These cannot leave the node.
  defp frames?(handles),
    do: List.keymember?(handles, 0, 0) and Arrow.explorer?() and Remote.caller() == nil

  defp fill_some([element | rest], places, interpreter) do
    [fill(element, places, interpreter) | fill_some(rest, places, interpreter)]
  rescue
    _error -> []
  end

  defp fill_some([], _places, _interpreter), do: []

  # Puts handles and large binaries in their places, and makes frames.
  defp fill({@mark, index, type}, {handles, _parts, _frames?}, interpreter)
       when is_integer(index) and index >= 0 and index < tuple_size(handles) do
    case elem(handles, index) do
      {_number, memory} when is_binary(memory) -> memory
      {id, handle} -> %Object{id: id, type: type, interpreter: interpreter, handle: handle}
    end
  end

  defp fill(%Arrow{} = arrow, {_handles, _parts, true} = places, interpreter),
    do: Arrow.to_explorer(%{arrow | data: fill(arrow.data, places, interpreter)})

  defp fill([head | tail], places, interpreter),
    do: [fill(head, places, interpreter) | fill(tail, places, interpreter)]

  defp fill(map, places, interpreter) when is_map(map),
    do: map |> :maps.to_list() |> fill(places, interpreter) |> :maps.from_list()

  defp fill(tuple, places, interpreter) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> fill(places, interpreter) |> List.to_tuple()

  defp fill(Parts.mark(index), {_handles, parts, _frames?}, _interpreter) when index < tuple_size(parts),
    do: elem(parts, index)

  defp fill(other, _places, _interpreter), do: other

  @codes %{
    "overloaded" => :overloaded,
    "python_runtime_error" => :python_runtime_error,
    "env_not_found" => :env_not_found,
    "env_key_not_found" => :env_key_not_found,
    "object_not_found" => :object_not_found
  }

  @doc """
  The error in the body of an ERROR frame.
  """
  @spec error(binary()) :: Error.t()
  def error(body) do
    # The option `:atoms` does not matter here: there is nothing but text.
    case decode(body, [:safe]) do
      {:ok, term} -> error_in(term)
      {:error, error} -> error
    end
  end

  @doc """
  The error that a term describes, as the body of an ERROR frame does.
  """
  @spec error_in(term()) :: Error.t()
  def error_in(term)

  def error_in(%{"code" => code, "reason" => reason} = map) when is_map_key(@codes, code) do
    %Error{
      code: Map.fetch!(@codes, code),
      reason: reason,
      traceback: map["traceback"],
      exception: describe(map["exception"])
    }
  end

  def error_in(other), do: internal("an error from Python cannot be understood: #{inspect(other)}")

  defp describe(%{"type" => type, "module" => module} = map) do
    %{type: type, module: module, notes: map["notes"] || [], cause: describe(map["cause"])}
  end

  defp describe(_none), do: nil

  defp internal(reason), do: %Error{code: :internal_error, reason: reason}
end
