"""A study from its file to its tables: what is planned, what it will take, running it, a small one that tries every stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import Study
from .manifest import write_manifest
from .plan import RESULTS, WHOLE, Part, plan
from .stages import Stage, costs, run_stages, waiting
from .summary import summarise

WEIGHTS = 135_000_000  # of the model that the stages' seconds were measured with
BYTES_A_WEIGHT = 16  # of a model that trains: weights, gradients and two moments in float32
BYTES_A_TOKEN = 2_600_000  # of a pass with SmolLM2-135M: what layers and logits keep for the way back
LONG = {"grounded start", "fine-tuning", "evaluation"}  # kinds of stages that tell how fast the model runs here


def run_study(
    study: Study,
    out: Path,
    *,
    part: Part = WHOLE,
    progress: Callable[[Stage, float, str], None] = lambda stage, share, detail: None,
) -> list[Path]:
    """Run what is not finished of a part of the study (all of it) in `out`; tables and figures of all results there are in the list
    that comes back.

    Raises:
        InputError: as `plan`, `run_stages` and `summarise`.
    """
    stages, whole, results = plan(study, part), plan(study), out / RESULTS
    write_manifest(study, whole, out, results)  # with what other parts left here

    def told(stage: Stage, share: float, detail: str) -> None:
        progress(stage, share, detail)
        if share == 1.0 and not detail:
            write_manifest(study, whole, out, results)

    run_stages(stages, out, progress=told)
    if not any(arm.fine_tuning for arm in study.arms.values()):
        return [out / stages[-1].output]
    return summarise(results, out)


def small(study: Study) -> Study:
    """The same study with a few steps for a few users: it tries every stage, and finds nothing."""
    grounding = {"steps": 2, "batch": 4, "every": 1}
    tuning = {"steps": 2, "batch": 2, "every": 0, "validate_users": 0}
    arms = {
        name: arm.model_copy(update={
            "grounding": arm.grounding.model_copy(update=grounding),
            "fine_tuning": arm.fine_tuning and arm.fine_tuning.model_copy(update=tuning),
            "seeds": None,
        })
        for name, arm in study.arms.items()
    }  # fmt: skip
    data = study.data.model_copy(update={"users": 20, "items": min(study.data.items, 200)})
    sids = study.sids.model_copy(update={"encoder": "lsa"})
    judged = study.evaluation.model_copy(update={"ks": [5], "users": 3})
    shared = study.grounding.model_copy(update=grounding)
    changed = {"seeds": study.seeds[:1], "data": data, "sids": sids, "evaluation": judged, "grounding": shared}
    return study.model_copy(update={**changed, "arms": arms})


@dataclass(frozen=True)
class Estimate:
    """What a run will take: for each stage whether it is finished and its processor seconds; memory at its peak in bytes.

    measured: whether finished stages of this run have corrected the seconds; else they are those of SmolLM2-135M on one
    thread of a processor with AVX512-BF16, in proportion to the number of weights.
    """

    stages: tuple[tuple[Stage, bool, float], ...]
    memory: float
    measured: bool

    @property
    def seconds(self) -> float:
        """What is left."""
        return sum(seconds for _, finished, seconds in self.stages if not finished)


def estimate(study: Study, out: Path, part: Part = WHOLE) -> Estimate:
    """What `run_study` would do in `out`, and about what it would take.

    Raises:
        InputError: as `plan`.
    """
    stages = plan(study, part)
    left, spent = waiting(stages, out), costs(stages, out)
    scale = weights_of(study.model) / WEIGHTS
    ratios = _ratios(stages, {name: cost["processor_seconds"] for name, cost in spent.items()})
    overall = ratios.get("", scale)
    rows = tuple((s, s.output not in left, s.weight * ratios.get(s.kind, overall)) for s in stages)
    tokens = max((arm.fine_tuning.micro_tokens for arm in study.arms.values() if arm.fine_tuning), default=0)
    memory = scale * (WEIGHTS * BYTES_A_WEIGHT + tokens * BYTES_A_TOKEN)
    return Estimate(rows, memory, bool(ratios))


def weights_of(model: str) -> float:
    """About how many weights a model has, by the size of its files; those of SmolLM2-135M where they are not here."""
    place = Path(model)
    if not model or not place.exists():
        return WEIGHTS
    files = list(place.glob("*.safetensors")) if place.is_dir() else [place]
    bits = 6 if place.suffix == ".gguf" else 16  # a guess from the name alone: an estimate need open nothing
    return sum(file.stat().st_size for file in files) * 8 / bits or WEIGHTS


def _ratios(stages: Sequence[Stage], spent: dict[str, float]) -> dict[str, float]:
    """What finished stages took, over what was estimated: by kind, and of `LONG` under the name ""; {} where none is."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for stage in stages:
        if stage.output in spent:
            for kind in (stage.kind, *([""] if stage.kind in LONG else [])):
                kinds.setdefault(kind, []).append((spent[stage.output], stage.weight))
    return {kind: sum(took for took, _ in pairs) / sum(weight for _, weight in pairs) for kind, pairs in kinds.items()}
