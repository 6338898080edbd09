"""Training without a task: the order of examples, the loop, the optimizer, resumable state, processes, trackers.

Nothing here knows prompts, tokens or recommendation.
"""
