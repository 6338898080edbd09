"""The same as `EmbeddingGeometryCallback`, for Lightning."""

from lightning.pytorch import Callback

from .live_rows import unwrapped
from .watch import Watch


class LightningEmbeddingGeometry(Callback):
    """Log measures of the new rows every `every` steps; warn or stop when they collapse or when frozen rows move.

    The numbers go to the Lightning loggers. The language model is the module itself, or its attribute `model`.

    Args: those of `Watch`, and `tokenizer`, which finds the new tokens where their ids are not given.

    Raises:
        InputError: as `Watch`; at the start of training, no new tokens.
    """

    def __init__(self, *args, tokenizer=None, **settings):
        self.watch, self.tokenizer = Watch(*args, **settings), tokenizer

    def on_train_start(self, trainer, pl_module):
        self.watch.begin(_language_model(pl_module), self.tokenizer)
        self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        last_of_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if last_of_step and trainer.global_step % self.watch.every == 0:
            self._look(trainer, pl_module)

    def _look(self, trainer, pl_module):
        step = trainer.global_step
        values, stop = self.watch.look(_language_model(pl_module), step=step, speak=trainer.is_global_zero)
        trainer.should_stop |= stop
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)


def _language_model(module):
    inner = unwrapped(module)
    return inner if hasattr(inner, "get_input_embeddings") else inner.model
