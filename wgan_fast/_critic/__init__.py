"""A critic inside a penalty or a loss: its input gradient, its layers, the independence of its rows."""
