defmodule Snex.Offers do
  @moduledoc """
  What runs on an interpreter's node for callers on others, through `Snex.Remote.run/5`.
  """

  alias Snex.Env

  @doc """
  Four environments, one of them twice, and a reference that is no handle, in everything that a value can be.
  """
  def nested(interpreter, reference, options) do
    [one, two, three, four] =
      for x <- 1..4 do
        {{:ok, env}, [_handle]} = Env.make(interpreter, [], %{"x" => x}, Snex.Serde.options!([]), options)
        env
      end

    result = %{
      two => [1, {one, "two"} | three],
      set: MapSet.new([four]),
      plain: {reference, [one], fn -> one end}
    }

    {result, for(env <- [one, two, three, four], do: env.handle)}
  end
end
