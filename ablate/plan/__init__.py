"""Search over imagined trajectories."""
