"""What each stage of a study does: it opens what earlier stages left in the run's folder, and leaves one file or folder."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from gti_diag.document import dumps
from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_train.catalogue.reading import open_catalogue, read_catalogue
from gti_train.catalogue.records import Catalogue
from gti_train.catalogue.writing import write_catalogue

from .config import Data, Evaluation, FineTuning, Grounding, Sids
from .stages import Tell

if TYPE_CHECKING:
    from gti_train.loop.training import StepRecord
    from gti_train.semantic_ids.ids import SemanticIds

COMPARED = ("recall@", "ndcg@")  # metrics whose values are kept user by user


def catalogue(out: Path, tell: Tell, *, to: str, data: Data, seed: int) -> None:
    """Items and histories: of a source those of some users, drawn from `data.seed`; of a world all, drawn from `seed`."""
    from gti_train.catalogue.world import product_world

    if data.source is None:
        users = 400 if data.users is None else data.users
        write_catalogue(product_world(items=data.items, users=users, seed=seed), out / to)
        return
    found = open_catalogue(data.source).catalogue
    write_catalogue(replace(found, histories=_drawn(found, data)), out / to)


def _drawn(found: Catalogue, data: Data) -> Any:
    """The histories of `data.users` users who can be judged (three events or more), in the source's order."""
    if data.users is None:
        return found.histories
    enough = [user for user, events in found.histories.items() if len(events) >= 3]
    if len(enough) < data.users:
        raise InputError(
            f"{data.source} has {len(enough)} users of three events or more, not {data.users}: ask for fewer"
        )
    chosen = set(Random(data.seed).sample(enough, data.users))
    return {user: found.histories[user] for user in enough if user in chosen}


def sids(out: Path, tell: Tell, *, of: str, to: str, wanted: Sids, seed: int) -> None:
    """Semantic IDs of all items."""
    from gti_train.semantic_ids.making import Wanted, make

    given = wanted.model_dump() | {"sizes": tuple(wanted.sizes), "seed": seed}
    make(read_catalogue(out / of / "items.jsonl"), Wanted(**given), out / to, progress=tell)


def base(out: Path, tell: Tell, *, to: str, model: str, chat: bool) -> None:
    """The model that all arms begin from, as a folder of transformers; unless `chat`, without its chat template."""
    from gti_train.model.directories import atomic_directory
    from gti_train.model.loading import installed_model, load_language_model, save_language_model

    with atomic_directory(out / to) as folder:
        weights, tokenizer = load_language_model(model or installed_model())
        if not chat:
            tokenizer.chat_template = None
        save_language_model(weights, tokenizer, folder)


def start(
    out: Path, tell: Tell, *, of: str, ids: str, items: str, to: str, init: str, seed: int, spread: float | None = None
) -> None:
    """The base model with rows for the codes, started as `init` and `spread` say."""
    from gti_train.model.vocabulary import extend_checkpoint
    from gti_train.semantic_ids.files import load_sids
    from gti_train.semantic_ids.ids import described

    made = load_sids(out / ids)
    texts = described(made, read_catalogue(out / items / "items.jsonl")) if init == "description" else None
    extend_checkpoint(
        out / of, out / to, tokens=made.tokens, levels=made.levels, init=init, seed=seed, counts=made.counts.tolist(),
        codebooks=made.reference, item_means=made.item_means, descriptions=texts, spread=spread,
    )  # fmt: skip


def ground(out: Path, tell: Tell, *, of: str, ids: str, items: str, to: str, how: Grounding, seed: int) -> None:
    """Rows that were taught what their codes stand for; an interrupted stage goes on from its last state."""
    from gti_train.grounding.config import GroundingConfig
    from gti_train.grounding.prompts import examples_from
    from gti_train.grounding.stage import ground_checkpoint
    from gti_train.semantic_ids.files import load_sids

    examples, held, _ = examples_from(
        read_catalogue(out / items / "items.jsonl"), load_sids(out / ids),
        kinds=how.kinds, seed=seed, words=how.words, held_out=how.hold_out,
    )  # fmt: skip
    settings = how.model_dump(exclude={"kinds", "words", "hold_out"})
    ground_checkpoint(
        out / of, out / to, examples=examples, held_out=held, config=GroundingConfig(**settings, seed=seed),
        save_every=how.every or 50, progress=partial(_step, tell, how.steps),
    )  # fmt: skip


def tune(out: Path, tell: Tell, *, of: str, ids: str, items: str, to: str, how: FineTuning, seed: int) -> None:
    """A model that learned what follows the histories of users."""
    from gti_train.recommend.config import LOSS, FineTuningConfig
    from gti_train.recommend.stage import fine_tune_checkpoint, lessons_from

    whole, made = _shop(out, items, ids)
    lessons = lessons_from(
        whole, made, weights=how.tasks, seed=seed, longest=how.longest, words=how.words, validate=how.validate_users
    )
    apart = {"tasks", "longest", "words", "validate_users", "ranked", "save_every"}
    watch = f"recall@{how.ranked}" if how.validate_users else LOSS
    config = FineTuningConfig(**how.model_dump(exclude=apart), seed=seed, watch=watch)
    fine_tune_checkpoint(
        out / of, out / to, lessons=lessons, sids=made, config=config, save_every=how.save_every, keep=1,
        progress=partial(_step, tell, how.steps),
    )  # fmt: skip


def evaluate(out: Path, tell: Tell, *, of: str, ids: str, items: str, to: str, how: Evaluation, about: dict) -> None:
    """The judgement of a fine-tuned model, and what each user contributed to it."""
    from gti_train.catalogue.splits import leave_one_out
    from gti_train.recommend.evaluation import EvaluationConfig, evaluate_checkpoint

    whole, made = _shop(out, items, ids)
    config = EvaluationConfig(ks=tuple(how.ks), beams=how.beams, most_users=how.users, seed=about["seed"])
    found, records = evaluate_checkpoint(
        out / of, sids=made, split=leave_one_out(whole), config=config, dtype=how.compute,
        progress=lambda done, total: tell(done / total, f"user {done}/{total}"),
    )  # fmt: skip
    users = {record["user_id"]: record["metrics"] for record in records}
    write_text(out / to, dumps({**about, **found, "checkpoint": of, "per_user": _columns(users)}))


def baselines(out: Path, tell: Tell, *, ids: str, items: str, to: str, how: Evaluation, about: dict) -> None:
    """Recommenders without a network, judged on the same users."""
    from gti_train.catalogue.splits import leave_one_out
    from gti_train.recommend import baselines as simple
    from gti_train.recommend.cases import cases
    from gti_train.recommend.evaluation import reconstructed
    from gti_train.recommend.judging import judge

    whole, made = _shop(out, items, ids)
    rows = {item: row for row, item in enumerate(made.item_ids)}
    asked = cases(leave_one_out(whole), rows).first(how.users)
    found = {}
    for name, scorer in simple.baselines(asked.training, reconstructed(made)).items():
        ranked = simple.rank(scorer, asked.histories, max(how.ks), popular=asked.popular)
        values = judge(ranked, asked.relevant, how.ks, gains="exponential")
        found[name] = {metric: of.tolist() for metric, of in values.items() if metric.startswith(COMPARED)}
    write_text(out / to, dumps({**about, "k": how.ks, "user_ids": list(asked.users), "baselines": found}))


def curve(out: Path, tell: Tell, *, of: str, to: str, about: dict) -> None:
    """Loss by step, and what was measured on the way, of a training stage."""
    lines = (out / of / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines]
    plain = {"step", "loss", "grad_norm", "learning_rate", "supervised", "seconds"}
    columns = {name: [step[name] for step in steps] for name in ("step", "loss", "supervised")}
    measured = [{"step": step["step"], **{k: v for k, v in step.items() if k not in plain}} for step in steps]
    write_text(out / to, dumps({**about, **columns, "measured": [entry for entry in measured if len(entry) > 1]}))


def diagnose(out: Path, tell: Tell, *, of: str, base: str, to: str, exhibits: bool, about: dict) -> None:
    """The geometry of the new rows; with `exhibits` also what figures show."""
    import gti_diag

    found = gti_diag.diagnose(
        out / of, base=out / base, seed=about["seed"], exhibits=exhibits,
        progress=lambda what, share: tell(share or 0.0, what),
    )  # fmt: skip
    write_text(out / to, dumps({**found, "study": about}))


def report(out: Path, tell: Tell, *, starts: Sequence[str], base: str, to: str, seed: int) -> None:
    """The starts side by side: document, summary and page."""
    import gti_diag
    from gti_diag.render.report import write

    def measured(what: str, share: float | None) -> None:
        done = int(what[1]) - 1 if what.startswith("[") else 0  # "[2/3] measuring …"
        tell(0.9 * (done + (share or 0.0)) / len(starts), what)

    analyses = gti_diag.compare([out / name for name in starts], base=out / base, seed=seed, progress=measured)
    tell(0.9, "drawing")
    write(analyses, out / to, formats=("json", "md", "html"))


def _shop(out: Path, items: str, ids: str) -> tuple[Catalogue, "SemanticIds"]:
    from gti_train.semantic_ids.files import load_sids

    folder = out / items
    return read_catalogue(folder / "items.jsonl", folder / "histories.jsonl"), load_sids(out / ids)


def _columns(users: dict[str, dict[str, float]]) -> dict[str, list]:
    """Users and, for the metrics that arms are compared by, their values."""
    names = [name for name in next(iter(users.values())) if name.startswith(COMPARED)]
    return {"user_ids": list(users), **{name: [values[name] for values in users.values()] for name in names}}


def _step(tell: Tell, steps: int, record: "StepRecord") -> None:
    tell(record.step / steps, f"step {record.step}/{steps}, loss {record.loss:.2f}")
