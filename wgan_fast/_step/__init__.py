"""The two halves of a step's implementation: its backends, and the optimization that applies the gradients."""
