"""From a study to its stages: which there are, what each depends on, and in which order they run.

    base ---------------+-> mean, random, description -+-> tuned -> judged, curve, geometry     for each arm and seed
    catalogue -> sids --+-> mean -> gti ---------------+
            \\-> baselines

Seed after seed, so that a study that is cut off still compares all arms. What does not depend on the seed, and what several
arms begin from, is made once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError

from . import work
from .config import Arm, Study
from .stages import Stage, fingerprint

RESULTS = "results"  # of a run's folder: all that tables and figures are made of


@dataclass(frozen=True)
class Part:
    """What is run of a study: these arms under these seeds; None: all. See `part_of`."""

    arms: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


WHOLE = Part()


def part_of(study: Study, *, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> Part:
    """A part of a study, for one of several machines; None: all.

    Raises:
        InputError: no arm or seed, one that the study does not have, or arms that run under none of the seeds.
    """
    for what, asked, there in (("arm", arms, list(study.arms)), ("seed", seeds, study.seeds)):
        known = f"choose from {', '.join(map(str, there))}"
        if asked is not None and not asked:
            raise InputError(f"no {what} is named: {known}")
        if unknown := [one for one in asked or () if one not in there]:
            raise InputError(f"the study has no {what} {unknown[0]}: {known}")
    chosen = {name: study.arms[name].seeds or study.seeds for name in arms or study.arms}
    if not any(seed in own for own in chosen.values() for seed in seeds or study.seeds):
        told = "; ".join(f"{name} runs under {', '.join(map(str, own))}" for name, own in chosen.items())
        raise InputError(f"nothing to run: {told}")
    return Part(tuple(arms) if arms else None, tuple(seeds) if seeds else None)


class Plan:
    """The stages of a study, gathered in the order in which they run."""

    def __init__(self, study: Study, part: Part) -> None:
        self.study, self.part, self.stages = study, part, dict[str, Stage]()
        self.grounded: dict[str, str] = {}  # settings of a grounding -> its output

    def add(
        self, output: str, title: str, weight: float, run: Callable[..., None], *, needs: tuple[str, ...] = (),
        settings: dict[str, Any] | None = None, spent: bool = False, **given: Any,
    ) -> str:  # fmt: skip
        """A stage, unless it is there already; returns its output."""
        if output not in self.stages:
            work_of = partial(run, to=output, **given)
            self.stages[output] = Stage(output, title, weight, work_of, settings or {}, needs, spent)
        return output

    def seed(self, seed: int) -> None:
        """All arms of the part that run under a seed; nothing where none does."""
        study, shared = self.study, self.study.data.source is not None
        arms = {
            name: arm
            for name, arm in study.arms.items()
            if name in (self.part.arms or study.arms) and seed in (arm.seeds or study.seeds)
        }
        if not arms or seed not in (self.part.seeds or study.seeds):
            return
        place, drawn = ("", study.data.seed) if shared else (f"seed-{seed}/", seed)
        data = study.data.model_dump() | {"drawn": drawn}
        if shared:
            if not Path(str(study.data.source)).exists():
                raise InputError(
                    f"data.source: {study.data.source}: no such file or folder; paths are taken from where the command runs"
                )
            data["content"] = fingerprint(str(study.data.source))
        base = self.add(
            "base", "language model", 6, work.base, model=study.model, chat=study.chat,
            settings={"model": fingerprint(study.model) if study.model else "SmolLM2-135M", "chat": study.chat},
        )  # fmt: skip
        items = self.add(
            f"{place}catalogue", "items and users", 1, work.catalogue, settings=data, data=study.data, seed=drawn
        )
        ids = self.add(
            f"{place}sids", "semantic IDs", 8 if study.sids.encoder == "lsa" else 100, work.sids, needs=(items,), of=items, wanted=study.sids, seed=drawn,
            settings=study.sids.model_dump() | {"seed": drawn},
        )  # fmt: skip
        self.places: dict[str, Any] = {"ids": ids, "items": items}
        self.base, self.number = base, seed
        if any(arm.fine_tuning for arm in study.arms.values()):
            self.baselines(seed)
        for name, arm in arms.items():
            self.arm(name, arm)
        if not any(arm.fine_tuning for arm in study.arms.values()):
            self.report(seed)

    def baselines(self, seed: int) -> None:
        self.add(
            f"{RESULTS}/seed-{seed}/baselines.json", "baselines without a network", 2, work.baselines,
            needs=tuple(self.places.values()), settings=self.study.evaluation.model_dump(), **self.places,
            how=self.study.evaluation, about=self.about(),
        )  # fmt: skip

    def start(self, init: str, spread: float | None = None) -> str:
        """Rows that are not trained."""
        wide: dict[str, Any] = {} if spread is None else {"spread": spread}
        name = init if spread is None else f"{init}-spread-{spread:g}"
        return self.add(
            f"seed-{self.number}/{name}", f"{name} start", 4, work.start, needs=(self.base, *self.places.values()),
            settings={"init": init, "seed": self.number, **wide}, of=self.base, init=init, seed=self.number, **wide, **self.places,
        )  # fmt: skip

    def gti(self, name: str, arm: Arm) -> str:
        """Grounded rows, once for all arms that ground alike; named after the first arm that does not as the study does."""
        mean, settings = self.start("mean"), arm.grounding.model_dump() | {"seed": self.number}
        usual = arm.grounding == self.study.grounding
        output = self.grounded.setdefault(repr(settings), f"seed-{self.number}/" + ("gti" if usual else f"gti-{name}"))
        self.add(
            output, "grounded start", 0.08 * arm.grounding.batch * arm.grounding.steps, work.ground, needs=(mean, *self.places.values()),
            settings=settings, of=mean, how=arm.grounding, seed=self.number, **self.places,
        )  # fmt: skip
        self.curve(output, f"{RESULTS}/{output}/ground.json", arm=None)
        return output

    def arm(self, name: str, arm: Arm) -> None:
        """One arm from its start to its results."""
        start = self.gti(name, arm) if arm.start == "gti" else self.start(arm.start, arm.spread)
        if arm.fine_tuning is None:
            return
        self.geometry(start, f"{RESULTS}/{start}/geometry.json", arm=None)
        tuned = self.add(
            f"seed-{self.number}/tuned/{name}", f"{name}: fine-tuning", 0.5 * arm.fine_tuning.batch * arm.fine_tuning.steps, work.tune,
            needs=(start, *self.places.values()), settings=arm.fine_tuning.model_dump() | {"seed": self.number},
            spent=not self.study.keep_models, of=start, how=arm.fine_tuning, seed=self.number, **self.places,
        )  # fmt: skip
        to = f"{RESULTS}/seed-{self.number}/arms/{name}"
        how = self.study.evaluation
        self.add(
            f"{to}/eval.json", f"{name}: evaluation", 0.4 * (how.users or self.study.data.users or 400), work.evaluate, needs=(tuned, *self.places.values()),
            settings=how.model_dump(), of=tuned, how=how, about=self.about(name, start), **self.places,
        )  # fmt: skip
        self.curve(tuned, f"{to}/sft.json", arm=name)
        self.geometry(tuned, f"{to}/geometry.json", arm=name)

    def curve(self, of: str, to: str, *, arm: str | None) -> None:
        self.add(to, f"{arm or 'grounding'}: curve", 0.1, work.curve, needs=(of,), of=of, about=self.about(arm))

    def geometry(self, of: str, to: str, *, arm: str | None) -> None:
        """The analysis of a checkpoint; what only figures show for the first seed alone."""
        exhibits = self.number == self.study.seeds[0]
        self.add(
            to, f"{arm or of.rpartition('/')[2]}: geometry", 20, work.diagnose, needs=(of, self.base), of=of,
            base=self.base, exhibits=exhibits, settings={"exhibits": exhibits}, about=self.about(arm, of),
        )  # fmt: skip

    def report(self, seed: int) -> None:
        """The starts beside each other, where a study ends with them."""
        starts = tuple(o for o in self.stages if o.startswith(f"seed-{seed}/") and o not in self.places.values())
        self.add(
            f"report-{seed}" if len(self.study.seeds) > 1 else "report", "measures and figures", 40, work.report,
            needs=(self.base, *starts), settings={"seed": seed}, starts=starts, base=self.base, seed=seed,
        )  # fmt: skip

    def about(self, arm: str | None = None, start: str | None = None) -> dict[str, Any]:
        """What a result says of where it belongs."""
        said = {"study": self.study.name, "seed": self.number, "arm": arm, "start": start and Path(start).name}
        return {key: value for key, value in said.items() if value is not None}


def plan(study: Study, part: Part = WHOLE) -> list[Stage]:
    """The stages of a study, or of a part of it, in the order in which they run.

    Raises:
        InputError: the source or the model cannot be read.
    """
    made = Plan(study, part)
    for seed in study.seeds:
        made.seed(seed)
    return list(made.stages.values())
