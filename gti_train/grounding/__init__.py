"""Grounding: prompts about what codes stand for, the objective, the stage and its second phase."""
