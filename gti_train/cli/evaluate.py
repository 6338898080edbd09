"""gti-train eval: how good the recommendations of a checkpoint are."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say
from gti_diag.errors import InputError

from .app import app
from .options import Histories, HistoryLength, Out, Quiet, Seed, Sids
from .progress import bar


@dataclass(frozen=True)
class Ranking:
    """How the lists are made."""

    beams: Annotated[
        int | None, typer.Option(min=1, help="Prefixes kept on each level.", show_default="the largest k")
    ] = None
    exact: Annotated[bool, typer.Option("--exact", help="Keep every prefix: no item is lost to a narrow beam.")] = False
    scores: Annotated[
        str,
        typer.Option(
            metavar="items|vocabulary", help="Probabilities of codes: among those that may follow, or all tokens."
        ),
    ] = "items"
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Never name an item of the user's history.")] = (
        False
    )
    history: HistoryLength = 20
    compute: Annotated[str, typer.Option(metavar="float32|bfloat16", help="Type to compute in.")] = "float32"


@dataclass(frozen=True)
class Judging:
    """What the lists are held against."""

    k: Annotated[str, typer.Option("--k", metavar="N,N,…", help="Lengths at which lists are judged.")] = "5,10,20"
    gains: Annotated[
        str, typer.Option(metavar="exponential|linear", help="Gain of a grade in NDCG: 2^g − 1, or g.")
    ] = "exponential"
    part: Annotated[
        str, typer.Option("--split", metavar="test|valid", help="Predict the last event, or the last but one.")
    ] = "test"
    grades: Annotated[
        Path | None, typer.Option(help='Graded items in place of events: {"user_id", "grades": {item: grade}} a line.')
    ] = None
    items: Annotated[
        Path | None, typer.Option(help="Catalogue whose texts the transition baseline compares; without it, codebooks.")
    ] = None
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Document of another evaluation to compare with, user by user. Repeatable."),
    ] = None
    users: Annotated[int | None, typer.Option(min=1, help="Judge by the first so many users.", show_default="all")] = (
        None
    )


@app.command(
    "eval",
    epilog="Example: gti-train eval ckpt/sft --histories shop/histories.jsonl --sids shop/sids --k 5,10,20 --json eval.json",
)
@unfolded
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint that `sft` wrote.")],
    histories: Histories,
    sids: Sids,
    json_file: Annotated[Path, typer.Option("--json", help="Document to write; a record a user goes beside it.")],
    judging: Judging,
    ranking: Ranking,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Rank the whole catalogue for each user, and judge the lists: the model, baselines without a network, slices.

    Codes come from `sids`, the model from `extend`, `ground` and `sft`. Each user's last event is kept for this, and only
    the events before the last two are ever trained on. Lists are judged at item level: codes that several items share count
    as each of them, by expectation. Several processes share the users: torchrun --nproc-per-node 4 -m gti_train.cli eval …
    """
    from gti_train.catalogue.reading import read_histories
    from gti_train.catalogue.splits import leave_one_out
    from gti_train.loop.processes import world
    from gti_train.recommend.evaluation import EvaluationConfig, evaluate_checkpoint
    from gti_train.semantic_ids.files import load_sids

    made = load_sids(sids)
    split = leave_one_out(read_histories(histories, made.item_ids))
    config = EvaluationConfig(
        ks=cuts(judging.k), gains=judging.gains, part=judging.part, most_users=judging.users, beams=ranking.beams,
        exact=ranking.exact, scores=ranking.scores, exclude_seen=ranking.exclude_seen, longest=ranking.history, seed=seed,
    )  # fmt: skip
    given = _given(judging, made.item_ids)
    with _users_bar(quiet) as progress:
        found, records = evaluate_checkpoint(
            checkpoint, sids=made, split=split, config=config, dtype=ranking.compute, progress=progress, **given
        )
    if world()[0]:
        return
    _write({**found, "histories": str(histories), "sids": str(sids)}, records, json_file)
    if not quiet:
        _show(found)


def _given(judging: Judging, item_ids: tuple[str, ...]) -> dict[str, Any]:
    """Texts, grades and other evaluations, read."""
    from gti_train.recommend.evaluation import read_grades, read_values

    return {
        "texts": _vectors(judging.items, item_ids) if judging.items is not None else None,
        "grades": read_grades(judging.grades, item_ids) if judging.grades is not None else None,
        "others": {str(path): read_values(path) for path in judging.against or ()},
    }


def _write(found: dict[str, Any], records: Sequence[dict[str, Any]], file: Path) -> None:
    """The document, and beside it a line a user."""
    from gti_diag.document import dumps
    from gti_diag.files import write_text

    beside = file.with_name(file.stem + ".users.jsonl")
    write_text(beside, "".join(_line(record) for record in records))
    write_text(file, dumps({**found, "per_user": str(beside)}))


@app.command(
    epilog="Example: gti-train curves mean=mean-0.json mean=mean-1.json gti=gti-0.json gti=gti-1.json --baseline mean --out figures"
)
def curves(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="ARM=EVAL.json…", help="Documents of `eval`; an arm named twice has two seeds."),
    ],
    baseline: Annotated[str, typer.Option(help="The arm that gains are over.")],
    out: Out,
) -> None:
    """Draw the gain of each arm over a baseline against the length of the list, with the spread of its seeds.

    Judge with many lengths first: gti-train eval … --k 5,10,20,50,100,200
    """
    from gti_diag.render import gain_curves
    from gti_diag.render.view import Missing
    from gti_train.recommend.evaluation import read_evaluation

    arms: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        arm, given, path = run.partition("=")
        if not (arm and given):
            raise InputError(f"{run!r} names no arm: write ARM=EVAL.json")
        arms.setdefault(arm, []).append(read_evaluation(path))
    try:
        written = gain_curves(arms, out, baseline=baseline)
    except Missing as error:
        raise InputError(f"nothing to draw: {error}") from error
    for figure in written:
        say(figure)


def cuts(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise InputError(f"--k {text!r}: write the lengths of the lists like 5,10,20") from None


def _vectors(items: Path, item_ids: tuple[str, ...]):
    from gti_train.catalogue.reading import read_catalogue
    from gti_train.semantic_ids.vectors import text_vectors

    texts = {item.id: item.text for item in read_catalogue(items).items}
    missing = [item for item in item_ids if item not in texts]
    if missing:
        raise InputError(f"{items}: item {missing[0]!r} has a semantic ID and no text ({len(missing)} items)")
    return text_vectors([texts[item] for item in item_ids])


def _line(record: dict[str, Any]) -> str:
    import json

    from gti_diag.document import canonical

    return json.dumps(canonical(record), ensure_ascii=False) + "\n"


@contextlib.contextmanager
def _users_bar(quiet: bool) -> Iterator[Callable | None]:
    if quiet:
        yield None
        return
    with bar("{task.description}") as display:
        task = display.add_task("ranking the catalogue for each user", total=None)
        yield lambda done, total: display.update(task, completed=done, total=total)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = [f"{name}@{k}" for name in ("recall", "ndcg") for k in found["k"]]
    table = Table(title=f"{found['users']} users, {found['items']} items, whole catalogue ranked", title_justify="left")
    table.add_column("")
    for name in shown:
        table.add_column(name, justify="right")
    rows = {"model": found["metrics"], "(codes, not items)": found["sid_level"], **found["baselines"]}
    for name, metrics in rows.items():
        table.add_row(name, *(f"{metrics[column]['value']:.4f}" for column in shown))
    Console().print(table)
