"""What a grounding run depends on, besides model and examples."""

from dataclasses import dataclass

from gti_diag.errors import InputError
from gti_train.loop.training import LoopConfig

WATCHED = ("held_out_loss", "rsa")


@dataclass(frozen=True)
class GroundingConfig:
    """Everything that a run depends on, besides model and examples.

    cache_bytes: how much may be kept of what precedes the first new token; 0 keeps nothing.
    micro_tokens: the most live tokens (with padding) in one forward pass; bounds memory, changes no result.
    every: steps between evaluations (geometry; held-out loss where examples are held out); 0 for none.
    patience: evaluations without a better value of `watch` before stopping; None never stops early.
    watch: held_out_loss (least is best) or rsa (most is best); the best rows are what remains.

    Raises:
        InputError: as `LoopConfig`; something else to watch.
    """

    steps: int = 150
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 10
    schedule: str = "constant"
    clip: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    cache_bytes: int = 1 << 30
    micro_tokens: int = 8192
    every: int = 0
    patience: int | None = None
    watch: str = "held_out_loss"

    def __post_init__(self) -> None:
        if self.watch not in WATCHED:
            raise InputError(f"{self.watch!r} cannot be watched: use one of {', '.join(WATCHED)}")
        _ = self.loop  # refuses what the loop cannot run

    @property
    def loop(self) -> LoopConfig:
        """The part that the loop reads."""
        names = LoopConfig.__dataclass_fields__
        return LoopConfig(**{name: getattr(self, name) for name in names})
