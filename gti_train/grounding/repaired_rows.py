"""The rows that a repair writes: from the healthy rows of the checkpoint itself, by the rule that was asked for."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gti_diag.checkpoint import Checkpoint, Matrix
from gti_diag.errors import InputError
from gti_diag.measures.tiles import evenly
from gti_diag.tokens.readable import display

from . import row_rules
from .repair_plan import Plan
from .row_rules import Healthy

WORD = re.compile(r"[^\W_]+")
QUESTIONS = (("What is called so? {text}", "{token}"), ("What does {token} mean?", "{text}"))


def make_rows(
    checkpoint: Checkpoint,
    chosen: Plan,
    role: str,
    *,
    rule: str,
    like: str | None,
    descriptions: Mapping[str, str],
    seed: int,
) -> Tensor:
    """The new rows of one matrix, in its own type."""
    matrix, ids = checkpoint.matrices[role], chosen.ids[role]
    healthy = healthy_rows(matrix, checkpoint, chosen.damaged)
    generator = torch.Generator().manual_seed(seed)
    if rule == "head":
        found = row_rules.at_median(_other_side(checkpoint, role, ids, matrix), healthy)
    elif rule == "copy-of":
        row = matrix.rows(torch.tensor([_id_of(checkpoint, like, chosen)])).double()[0]
        found = row_rules.copied_rows(row, healthy, len(ids), generator)
    elif rule == "mean":
        found = row_rules.mean_rows(healthy, len(ids), generator)
    else:
        pieces = [_pieces(checkpoint, id, descriptions, chosen.damaged) for id in ids]
        found = row_rules.described_rows([matrix.rows(own).double() for own in pieces], healthy, generator)
    return found.to(matrix.dtype)


def healthy_rows(matrix: Matrix, checkpoint: Checkpoint, damaged: frozenset[int]) -> Healthy:
    """Rows that have a token and that no scan found, at most 16,384 of them, evenly chosen.

    Raises:
        InputError: fewer than 16.
    """
    tokens = checkpoint.vocabulary.tokens if checkpoint.vocabulary is not None else None
    named = [id for id in range(matrix.shape[0]) if tokens is None or (id < len(tokens) and tokens[id] is not None)]
    ids = torch.tensor([id for id in named if id not in damaged], dtype=torch.long)
    if len(ids) < 16:
        raise InputError(f"{matrix.name} has {len(ids)} healthy rows: too few to repair others by")
    return Healthy(matrix.rows(ids[evenly(len(ids), row_rules.SAMPLED)]).double())


def _other_side(checkpoint: Checkpoint, role: str, ids: Sequence[int], matrix: Matrix) -> Tensor:
    other = checkpoint.matrices.get("output" if role == "input" else "input")
    if other is None or checkpoint.tied:
        raise InputError(
            f"{checkpoint.path} stores no head apart from the input matrix: use --rule mean or description"
        )
    if other.shape != matrix.shape:
        raise InputError(
            f"{other.name} has shape {other.shape}, {matrix.name} {matrix.shape}: use --rule mean or description"
        )
    return other.rows(torch.tensor(list(ids))).double()


def _id_of(checkpoint: Checkpoint, like: str | None, chosen: Plan) -> int:
    if like is None:
        raise InputError("--rule copy-of needs the token to copy: --rule copy-of --like TOKEN")
    strings = display(checkpoint.vocabulary, checkpoint.matrices["input"].shape[0])
    raw = checkpoint.vocabulary.tokens if checkpoint.vocabulary is not None else ()
    for names in (strings, raw):
        if like in names:
            id = names.index(like)
            if id in chosen.damaged:
                raise InputError(f"--like {like!r} is damaged itself: name a healthy token")
            return id
    raise InputError(f"--like {like!r} is no token of {checkpoint.path}: write it as the scan shows tokens")


def _pieces(checkpoint: Checkpoint, id: int, descriptions: Mapping[str, str], damaged: frozenset[int]) -> Tensor:
    """Ids of healthy tokens that spell what the token's description, or its own name, says; " tea" may be spelt "tea"."""
    name = display(checkpoint.vocabulary, id + 1)[id]
    text = descriptions.get(name) or " ".join(WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)))
    encode = checkpoint.tokenizer.encoder
    if encode is None:
        raise InputError(
            f"{checkpoint.path} has no tokenizer.json that works: descriptions cannot be read; use --rule mean"
        )
    spellings = (f" {text}", text, text.capitalize(), text.upper()) if text else ()
    read = ([piece for piece in encode(spelling) if piece != id and piece not in damaged] for spelling in spellings)
    found = next((pieces for pieces in read if pieces), None)
    if found is None:
        raise InputError(
            f"token {name!r} (id {id}) says nothing of itself: describe it in --descriptions, or use --rule mean"
        )
    return torch.tensor(found)


def grounded(
    folder: Path, chosen: Plan, opened: Checkpoint, descriptions: Mapping[str, str], *, steps: int, seed: int
) -> dict[str, tuple[list[int], Tensor]]:
    """The rows after some steps of training on the descriptions, all else frozen."""
    from gti_train.model.loading import load_language_model
    from gti_train.model.new_rows import NewRows
    from gti_train.model.sequences import Example

    from .config import GroundingConfig
    from .ground import ground

    ids = sorted({id for own in chosen.ids.values() for id in own})
    strings = display(opened.vocabulary, opened.matrices["input"].shape[0])
    model, tokenizer = load_language_model(folder)
    examples = [
        Example(ask.format(**named), answer.format(**named), "repair", str(id))
        for id in ids
        for named in ({"text": descriptions[strings[id]], "token": strings[id]},)
        for ask, answer in QUESTIONS
    ]
    rows = NewRows(model, ids)
    config = GroundingConfig(steps=steps, batch=min(16, len(examples)), warmup=min(5, steps), seed=seed)
    for _ in ground(model, tokenizer, examples, config, ids=ids, rows=rows):
        pass
    place = {id: number for number, id in enumerate(ids)}
    found = {}
    for role, own in chosen.ids.items():
        trained = rows.masters[role if role in rows.masters else "input"].data.cpu()
        found[role] = (own, trained[[place[id] for id in own]].to(opened.matrices[role].dtype))
    return found
