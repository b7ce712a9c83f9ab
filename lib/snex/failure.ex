defmodule Snex.Failure do
  @moduledoc false
  # How Elixir code that runs for Python has failed, in the form in which Python is told: `Failure` in `call.rs`.

  @type t() :: %{kind: String.t(), reason: binary(), message: String.t(), stacktrace: [String.t()]}

  # The most bytes of a message. An error of Python's contains its text twice: as the reason, and at the end of the traceback. When Elixir
  # and Python have called each other, the text of each level contains that of the next, so it doubles with each level.
  @longest_message 32 * 1024
  @end_of_message 8 * 1024

  @doc """
  Describes what was caught.
  """
  @spec describe(:error | :exit | :throw, term(), Exception.stacktrace()) :: t()
  def describe(kind, reason, stacktrace) do
    %{
      kind: to_string(kind),
      reason: :erlang.term_to_binary(Exception.normalize(kind, reason, stacktrace)),
      message: shortened(Exception.format(kind, reason, stacktrace)),
      stacktrace: Enum.map(stacktrace, &Exception.format_stacktrace_entry/1)
    }
  end

  defp shortened(message) when byte_size(message) <= @longest_message, do: message

  defp shortened(message) do
    left_out = byte_size(message) - @longest_message
    first = binary_part(message, 0, @longest_message - @end_of_message)
    last = binary_part(message, byte_size(message), -@end_of_message)
    String.replace_invalid("#{first}\n... #{left_out} bytes left out ...\n#{last}")
  end
end
