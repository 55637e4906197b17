"""The state of a run: folder, checkpoints, history and random states."""
