"""How a notebook shows Python objects and runs cells. `Snex.Display` and `Snex.Cell` call these modules."""
