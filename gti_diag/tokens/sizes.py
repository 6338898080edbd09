"""What the sizes say: tokens without a row, rows that were lost, rows that were never more than padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gti_diag.checkpoint.lazy import torch
from gti_diag.checkpoint.records import Checkpoint, Matrix

from .codes import PLACEHOLDER, plain
from .readable import listed

SHORT_HEAD = "tokens without a row in the head"


@dataclass(frozen=True)
class Alarm:
    """Something that no measure of the rows shows. One that `fails` fails a check by itself."""

    kind: str
    text: str
    fails: bool


def rowless(checkpoint: Checkpoint) -> dict[int, str]:
    """Tokens of the tokenizer whose id is no row of the input matrix."""
    rows = checkpoint.matrices["input"].shape[0]
    vocabulary = checkpoint.vocabulary
    beyond = enumerate(vocabulary.tokens[rows:], rows) if vocabulary is not None else ()
    return {id: token for id, token in beyond if token is not None}


def alarms(
    checkpoint: Checkpoint, base: Checkpoint | None, new: Sequence[int], text: Sequence[int], *, scan: bool
) -> list[Alarm]:
    """All that hold; rows are read (with `scan`) only of new tokens where the base had padding."""
    found = [_without_row(checkpoint), _short_head(checkpoint, new, text)]
    if base is not None and len(new) < checkpoint.matrices["input"].shape[0]:  # vectors alone have lost no rows
        found += [_shrunk(checkpoint, base), _padding(checkpoint, base, new) if scan else None]
    return [alarm for alarm in found if alarm is not None]


def _without_row(checkpoint: Checkpoint) -> Alarm | None:
    missing, matrix = rowless(checkpoint), checkpoint.matrices["input"]
    if not missing:
        return None
    have = "token has" if len(missing) == 1 else "tokens have"
    text = (
        f"{len(missing):,} {have} no row in {matrix.name} ({matrix.shape[0]:,} rows): {listed(list(missing.values()))}"
    )
    return Alarm("tokens without a row", text, fails=True)


def head_lacks(head: Matrix, ids: Sequence[int]) -> int:
    """How many of the ids are no row of the head."""
    return sum(id >= head.shape[0] for id in ids)


def _short_head(checkpoint: Checkpoint, new: Sequence[int], text: Sequence[int]) -> Alarm | None:
    head = checkpoint.matrices.get("output")
    if head is None:
        return None
    for kind, ids in (("new", new), ("text", text)):
        count = head_lacks(head, ids)
        if count:
            have = "token has" if count == 1 else "tokens have"
            name = head.name.removesuffix(".weight")
            text_ = (
                f"{count:,} {kind} {have} no row in {name} ({head.shape[0]:,} rows): only the input matrix is judged"
            )
            return Alarm(SHORT_HEAD, text_, fails=False)
    return None


def _shrunk(checkpoint: Checkpoint, base: Checkpoint) -> Alarm | None:
    now, was = checkpoint.matrices["input"].shape[0], base.matrices["input"].shape[0]
    if now >= was:
        return None
    theirs = base.vocabulary.tokens[now:was] if base.vocabulary is not None else ()
    lost = [token for token in theirs if token is not None]
    what = f"{len(lost):,} tokens of the base among them ({listed(lost)})" if lost else "none of them with a token"
    if base.vocabulary is None:
        what = "the base has no tokenizer file that names them"
    text = f"the input matrix has {now:,} rows, that of the base {base.path} {was:,}: {was - now:,} are gone, {what}"
    return Alarm("rows of the base lost", text, fails=bool(lost))


def _padding(checkpoint: Checkpoint, base: Checkpoint, new: Sequence[int]) -> Alarm | None:
    """New tokens that took rows without a token of the base, and still hold what the base holds there."""
    ours, theirs = checkpoint.matrices["input"], base.matrices["input"]
    if base.vocabulary is None or ours.shape[1:] != theirs.shape[1:]:
        return None
    ids = [id for id in new if id < theirs.shape[0] and _unused(base, id)]
    if not ids:
        return None
    same = 0
    for part in torch.tensor(ids, dtype=torch.long).split(8192):
        same += int((ours.rows(part).double() == theirs.rows(part).double()).all(1).sum())
    if not same:
        return None
    text = f"{same:,} of {len(new):,} new rows equal the padding of the base {base.path} at the same ids: never trained"
    return Alarm("rows of the base's padding", text, fails=True)


def _unused(base: Checkpoint, id: int) -> bool:
    assert base.vocabulary is not None
    token = base.vocabulary.tokens[id] if id < base.vocabulary.size else None
    return token is None or bool(PLACEHOLDER.fullmatch(plain(token)))
