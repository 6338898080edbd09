"""Checkpoints as files: descriptions are read, rows are read, models are never built."""

from .opening import open_base, open_checkpoint
from .records import Checkpoint, Matrix, Vocabulary

__all__ = ["Checkpoint", "Matrix", "Vocabulary", "open_base", "open_checkpoint"]
