defmodule Decimal do
  @moduledoc """
  The struct of the library `decimal`, on which Snex doesn't depend.
  """

  @type t() :: %__MODULE__{sign: 1 | -1, coef: non_neg_integer() | :NaN | :inf, exp: integer()}

  defstruct sign: 1, coef: 0, exp: 0
end
