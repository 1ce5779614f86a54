"""The trainer: objective, schedule, checkpoints. Knows nothing of environments."""
