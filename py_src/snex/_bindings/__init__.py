"""What a Python module offers, described for the generator of Elixir modules.

Runs once per generated module, in the project's own Python, without a Snex interpreter. It can
describe any module: what raises an exception while it is inspected is left out.
"""
