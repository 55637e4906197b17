"""What a run shows: metrics, pictures, progress and alarms."""
