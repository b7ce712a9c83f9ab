"""What a notebook shows of Python objects, and how it runs a cell. `Snex.Display` and `Snex.Cell` call these modules."""
