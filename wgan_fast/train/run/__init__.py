"""What a run keeps: its folder, checkpoints, history and random states."""
