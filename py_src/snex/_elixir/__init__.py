"""What user code has of Elixir: calls and messages, logging, and connections for other processes."""
