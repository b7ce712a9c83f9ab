"""User code: how it is compiled, in which environment it runs, and what it prints, raises and is interrupted by."""
