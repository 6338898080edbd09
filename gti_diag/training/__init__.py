"""Watching rows while they train: callbacks, live rows of a model in memory, trajectories over saved steps."""
