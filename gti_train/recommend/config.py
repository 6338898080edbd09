"""What a fine-tuning run depends on, besides model and examples."""

import re
from dataclasses import dataclass

from gti_diag.errors import InputError
from gti_train.loop.training import LoopConfig
from gti_train.loop.watched import Watch

LOSS = "validation_loss"
LOSSES = ("vocabulary", "codes")


@dataclass(frozen=True)
class FineTuningConfig:
    """Everything that a run depends on, besides model and examples.

    batch: families of examples in a step (a user's next items in one phrasing; one question about an item).
    loss: of a code's probability among all tokens, or among the codes that decoding can choose from there.
    rank: of the LoRA adapters on linear layers, with `alpha`; 0 trains every weight.
    micro_tokens: the most nodes of token trees (with padding) in one forward pass; bounds memory, changes no result.
    checkpointing: compute every layer again in the backward pass instead of keeping what it computed.
    every, watch, patience: see `Watch`; by `validation_loss`, or by `recall@K`, which decodes.

    Raises:
        InputError: as `LoopConfig`; an unknown loss; something else to watch.
    """

    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-4
    warmup: int = 10
    schedule: str = "linear"
    clip: float = 1.0
    seed: int = 0
    max_tokens: int = 1024
    micro_tokens: int = 2048
    loss: str = "vocabulary"
    rank: int = 0
    alpha: int = 32
    checkpointing: bool = False
    every: int = 0
    watch: str = LOSS
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise InputError(f"loss {self.loss!r} is unknown: use one of {', '.join(LOSSES)}")
        if self.watch != LOSS and self.ranked is None:
            raise InputError(f"{self.watch!r} cannot be watched: use {LOSS}, or recall@K such as recall@10")
        _ = self.loop  # refuses what the loop cannot run

    @property
    def loop(self) -> LoopConfig:
        """The part that the loop reads."""
        return LoopConfig(**{name: getattr(self, name) for name in LoopConfig.__dataclass_fields__})

    @property
    def ranked(self) -> int | None:
        """K, where recall@K is watched."""
        found = re.fullmatch(r"recall@([1-9]\d*)", self.watch)
        return int(found[1]) if found else None

    @property
    def watched(self) -> Watch:
        """When to measure, and what to go by."""
        return Watch(self.every, self.watch, self.patience)
