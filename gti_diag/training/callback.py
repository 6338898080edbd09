"""The geometry of new token rows while they train: a callback for the Trainer of transformers, and those built on it (TRL)."""

import sys
from types import FrameType

from transformers import Trainer, TrainerCallback

from .watch import Watch


class EmbeddingGeometryCallback(TrainerCallback):
    """Log measures of the new rows every `every` steps; warn or stop when they collapse or when frozen rows move.

    The numbers go wherever the Trainer's own logs go, as `geometry/NAME`, and `geometry/output/NAME` for the rows of a head
    that is not tied. At most 1024 new and 1024 old rows are read, evenly spread, through the embedding itself, so that
    adapters count; of a matrix sharded by FSDP2, only those rows travel.

    Args: those of `Watch`: new, measures, references, every, on_collapse, on_drift.

    Raises:
        InputError: as `Watch`; at the start of training, no new tokens.
    """

    def __init__(self, *args, **settings):
        self.watch = Watch(*args, **settings)

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        self.watch.begin(model, processing_class)
        return self._look(state, control, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        return self._look(state, control, model) if state.global_step % self.watch.every == 0 else control

    def _look(self, state, control, model):
        values, stop = self.watch.look(model, step=state.global_step, speak=state.is_world_process_zero)
        control.should_training_stop |= stop
        _log(values, state)
        return control


def _log(values: dict[str, float], state) -> None:
    """Through the Trainer whose callback this is; into its history where there is none on the stack.

    The Trainer hands callbacks no reference to itself, and runs its trackers before the user's callbacks, so entries added
    to `logs` in on_log would reach none of them. It is the caller, though, and so its frame is there.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            owner.log(dict(values))
            return
        frame = frame.f_back
    state.log_history.append({**values, "step": state.global_step})
