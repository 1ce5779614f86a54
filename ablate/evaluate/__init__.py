"""Rollouts, held-out prediction error and the audit of what a model can see."""
