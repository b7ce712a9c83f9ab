"""What a Python module offers, described for the generator of Elixir modules.

Runs once per generated module, in the project's own Python and without an interpreter of Snex. The
modules that it describes are anybody's: whatever raises while it is looked at is left out.
"""
