"""Values on their way to Elixir, in the External Term Format, and the types of Elixir that Python lacks."""
