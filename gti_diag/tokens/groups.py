"""Which rows are new, which are reserved, which are text: named, disjoint groups that cover every row."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from gti_diag.checkpoint.lazy import Tensor, torch
from gti_diag.checkpoint.records import Checkpoint, Vocabulary, bad

from .codes import LEAST_FAMILY, LEAST_UNADDED, code_like, families, level_numbers, trailing
from .readable import display, listed, word
from .sizes import Alarm, alarms, rowless
from .unused import SPECIAL, never_trained, reserved

RANGES = re.compile(r"\d+(:\d+)?(,\d+(:\d+)?)*")
MOST_NAMED = 2_000_000  # rows: a description of more would take gigabytes
ROUND = (8, 100)  # vocabularies are padded to multiples of 8, 64, 128, …, or to round numbers


@dataclass(frozen=True)
class Group:
    """Rows under one name, with their readable strings and, for codes, the 1-based level and the family of each."""

    name: str
    numbers: tuple[int, ...]
    tokens: tuple[str, ...]
    level_numbers: tuple[int, ...] | None = None
    families: tuple[str, ...] | None = None

    @functools.cached_property
    def ids(self) -> Tensor:
        return torch.tensor(self.numbers, dtype=torch.long)

    @functools.cached_property
    def levels(self) -> Tensor | None:
        return None if self.level_numbers is None else torch.tensor(self.level_numbers, dtype=torch.long)

    @property
    def count(self) -> int:
        return len(self.tokens)

    def within(self, rows: int) -> Group:
        """The part of the group that has a row in a matrix of so many."""
        if all(number < rows for number in self.numbers):
            return self
        kept = [place for place, number in enumerate(self.numbers) if number < rows]

        def of(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[place] for place in kept)

        return Group(
            self.name, of(self.numbers) or (), of(self.tokens) or (), of(self.level_numbers), of(self.families)
        )


@dataclass(frozen=True)
class Partition:
    """Disjoint groups covering all rows, and the sentence that says how the new ones were found.

    `alarms` are what the sizes say, `notes` what a reader should know besides.
    """

    rule: str
    groups: Mapping[str, Group]
    notes: tuple[str, ...] = field(default=())
    alarms: tuple[Alarm, ...] = field(default=())


@dataclass(frozen=True)
class _Choice:
    """Ids chosen as new, why, levels if the source states them, and further groups found on the way."""

    ids: list[int]
    rule: str
    levels: list[int] | None = None
    others: Mapping[str, list[int]] = field(default_factory=dict)


def partition(
    checkpoint: Checkpoint, *, new: str = "auto", base: Checkpoint | None = None, scan: bool = True
) -> Partition:
    """Split the rows of the input matrix into `text`, `new`, `reserved`, and further groups where `auto` finds them.

    Args:
        checkpoint: what was opened.
        new: the selector: `auto`, a regular expression searched in the token strings, id ranges `5:9,12` (half open),
            or `@file` with one token a line.
        base: the checkpoint it was extended from.
        scan: read the text rows to find never-trained ones; without it only descriptions are used.

    Raises:
        InputError: the selector is unusable or matches nothing.
    """
    matrix = checkpoint.matrices["input"]
    rows = matrix.shape[0]
    if not scan and rows > MOST_NAMED:
        raise bad(checkpoint.path, f"has {rows:,} rows in {matrix.name!r}, too many to name (at most {MOST_NAMED:,})",
                  "choose another matrix with --tensor, or analyze it")  # fmt: skip
    strings = display(checkpoint.vocabulary, rows)
    choice = _auto(checkpoint, base, rows) if new == "auto" else _selected(checkpoint, new, strings)
    chosen = {*choice.ids, *(id for ids in choice.others.values() for id in ids)}
    causes = {id: why for id, why in reserved(checkpoint.vocabulary, rows).items() if id not in chosen}
    text = [id for id in range(rows) if id not in chosen and id not in causes]
    notes = [*checkpoint.notes, *_size_notes(checkpoint.vocabulary, rows)]
    if scan:
        found = never_trained(matrix, text, unused=[id for id, why in causes.items() if why != SPECIAL])
        if len(found) < len(text):
            causes |= found
            text = [id for id in text if id not in causes]
        elif text:
            notes.append("every text row is identical to another or has the norm of unused rows: all are kept as text")
    if new == "auto":
        notes += _left_out(checkpoint.vocabulary, chosen, reserved=causes, rows=rows)
        notes += _well_known(checkpoint.vocabulary, causes, rows) if base is None else []
    if causes:
        counted = Counter(causes.values()).most_common()
        notes.append(f"reserved {len(causes):,} rows: " + ", ".join(f"{count:,} {cause}" for cause, count in counted))

    def group(name: str, ids: Sequence[int], levels: list[int] | None = None) -> Group:
        return _with_codes(name, ids, [strings[id] for id in ids], levels)

    named = {"text": text, "new": choice.ids, **choice.others, "reserved": sorted(causes)}
    groups = {
        name: group(name, ids, choice.levels if name == "new" else None)
        for name, ids in named.items()
        if ids or name == "text"
    }
    told = alarms(checkpoint, base, sorted(chosen), text, scan=scan)
    return Partition(choice.rule, groups, tuple(notes), tuple(told))


def _with_codes(name: str, ids: Sequence[int], tokens: Sequence[str], levels: list[int] | None) -> Group:
    """The group, with families and levels if every token is a code, or the levels as stated."""
    codes = code_like(dict(enumerate(tokens))) if name not in ("text", "reserved") else {}
    complete = 0 < len(codes) == len(tokens)
    names = tuple(codes[place][0] for place in range(len(tokens))) if complete else None
    if levels is None and complete:
        levels = level_numbers([codes[place][1] for place in range(len(tokens))])
    return Group(name, tuple(ids), tuple(tokens), None if levels is None else tuple(levels), names)


def _size_notes(vocabulary: Vocabulary | None, rows: int) -> list[str]:
    if vocabulary is None:
        return ["no tokenizer file that can be read: tokens are shown as row numbers"]
    if vocabulary.size < rows:
        return [
            f"the matrix has {rows:,} rows, the tokenizer {vocabulary.size:,} ids; "
            f"if the rest are new tokens, select them by --new {vocabulary.size}:{rows}"
        ]
    return []


def _left_out(vocabulary: Vocabulary | None, chosen: Set[int], *, reserved: Mapping[int, str], rows: int) -> list[str]:
    """How many added tokens count as text; those in `reserved` have a note of their own."""
    added = vocabulary.added if vocabulary is not None else {}
    left = [token for id, token in added.items() if id < rows and id not in chosen and id not in reserved]
    return [f"added tokens that count as text: {len(left):,} ({listed(left)}); choose with --new"] if left else []


def _well_known(vocabulary: Vocabulary | None, causes: Mapping[int, str], rows: int) -> list[str]:
    """The added tokens that end the vocabulary and are reserved only because models usually ship them."""
    added = vocabulary.added if vocabulary is not None else {}
    last = min(rows, vocabulary.size) if vocabulary is not None else 0
    first = last
    while first - 1 in added:
        first -= 1
    tokens = [added[id] for id in range(first, last) if causes.get(id) == SPECIAL]
    if not tokens:
        return []
    return [f"added at the end, taken as a model's own special tokens and not as new: {listed(tokens)}; "
            "if they are new, choose them with --new or give --base"]  # fmt: skip


# --- what the user selects ------------------------------------------------------------------------------------------


def _selected(checkpoint: Checkpoint, selector: str, strings: list[str]) -> _Choice:
    if selector.startswith("@"):
        return _listed(checkpoint, Path(selector[1:]), strings)
    if RANGES.fullmatch(selector):
        return _ranges(checkpoint, selector, len(strings))
    try:
        pattern = re.compile(selector)
    except re.error as error:
        raise bad(f"--new {selector!r}", f"is not a regular expression ({error})") from error
    if checkpoint.vocabulary is None:
        raise bad(f"--new {selector!r}", f"needs token strings, but {checkpoint.path} has no tokenizer file that can be read",
                  "select by id ranges such as 5:9")  # fmt: skip
    named = [
        (id, strings[id]) for id, token in enumerate(checkpoint.vocabulary.tokens[: len(strings)]) if token is not None
    ]
    ids = [id for id, text in named if pattern.search(text)]
    if not ids:
        beyond = [token for token in rowless(checkpoint).values() if pattern.search(token)]
        if beyond:
            raise bad(f"--new {selector!r}", f"matches {len(beyond):,} tokens that have no row in {checkpoint.path} "
                      f"({len(strings):,} rows): {listed(beyond)}", "resize the embedding and save again")  # fmt: skip
        raise bad(f"--new {selector!r}", f"matches none of the {len(strings):,} tokens of {checkpoint.path}")
    return _Choice(ids, f"selector {selector!r} matched {len(ids):,} token strings")


def _ranges(checkpoint: Checkpoint, selector: str, rows: int) -> _Choice:
    ids: dict[int, None] = {}
    for part in selector.split(","):
        first, colon, last = part.partition(":")
        start, stop = int(first), int(last) if colon else int(first) + 1
        if not start < stop <= rows:
            raise bad(f"--new {selector!r}", f"{part} is not a range of rows of {checkpoint.path}",
                      f"rows are 0:{rows}")  # fmt: skip
        ids |= dict.fromkeys(range(start, stop))
    return _Choice(list(ids), f"selector {selector!r}: {len(ids):,} rows by id")


def _listed(checkpoint: Checkpoint, file: Path, strings: list[str]) -> _Choice:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise bad(f"--new @{file}", f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    raw = checkpoint.vocabulary.tokens if checkpoint.vocabulary is not None else ()
    by_string = {text: id for id, text in reversed(list(enumerate(strings)))}
    by_string |= {token: id for id, token in reversed(list(enumerate(raw[: len(strings)]))) if token is not None}
    missing = [line for line in lines if line not in by_string]
    if missing or not lines:
        beyond = set(rowless(checkpoint).values())
        no = "has no row in" if missing and missing[0] in beyond else "is no token of"
        what = f"lists {missing[0]!r}, which {no} {checkpoint.path}" if missing else "lists no token"
        raise bad(f"--new @{file}", what, f"{len(missing)} of {len(lines)} lines match nothing" if missing else "")
    return _Choice(
        list(dict.fromkeys(by_string[line] for line in lines)), f"the {len(lines):,} tokens listed in {file}"
    )


# --- what is found --------------------------------------------------------------------------------------------------


def _auto(checkpoint: Checkpoint, base: Checkpoint | None, rows: int) -> _Choice:
    """The first rule that finds something; what each rule is, is in its sentence."""
    vocabulary = checkpoint.vocabulary
    added = {id: t for id, t in vocabulary.added.items() if id < rows} if vocabulary is not None else {}
    end = min(rows, vocabulary.size) if vocabulary is not None else 0
    tail = trailing(added, end)
    sidecar = checkpoint.sidecar
    if sidecar is not None:
        ids, levels = list(sidecar["ids"]), sidecar.get("levels")
        return _Choice(ids, f"gti.json lists {len(ids):,} new tokens", levels, _rest(tail, ids))
    if checkpoint.own:
        return _Choice(list(checkpoint.own), f"no gti.json; {checkpoint.own_because}")
    tried = "no gti.json"
    if base is not None:
        ids, rule = _lacking(checkpoint, base, rows)
        if ids:
            strings = _strings(vocabulary, rows)
            lacking = {id: strings[id] for id in ids if id in strings}
            return _coded(lacking, rule, "of them", rest=ids) or _Choice(ids, rule)
        missing = rowless(checkpoint)
        tried += f", {'no row' if missing else 'nothing'} that the base {base.path} lacks"
    for kind, tokens, least in (
        ("added", added, LEAST_FAMILY),
        ("vocabulary", _strings(vocabulary, rows), LEAST_UNADDED),
    ):
        choice = _coded(tokens, tried, f"{kind} tokens", rest=tail, least=least)
        if choice is not None:
            return choice
    if tail:
        rule = f"{tried}, no added codes; {len(tail):,} added tokens end the vocabulary ({word(added[tail[0]])} … {word(added[tail[-1]])})"
        return _Choice(tail, f"{rule} that are not in the list of known tokens")
    if vocabulary is not None and vocabulary.size < rows and all(rows % step for step in ROUND):
        ids = list(range(vocabulary.size, rows))
        rule = f"{tried}, no added codes; {len(ids):,} rows beyond the tokenizer's {vocabulary.size:,} ids"
        return _Choice(ids, f"{rule}, and {rows:,} is no padded size")
    return _Choice(
        [], f"no new tokens: {tried}, no added token that looks like a code or ends the vocabulary unexplained"
    )


def _coded(
    tokens: Mapping[int, str], lead: str, kind: str, *, rest: Sequence[int], least: int = LEAST_FAMILY
) -> _Choice | None:
    """The largest family of codes among the tokens as new, others and the rest as further groups; None if none is a code."""
    codes = code_like(tokens, least=least)
    if not codes:
        return None
    (_, ids), *more = families(codes).items()
    others = {f"{name} codes": found for name, found in more}
    rule = f"{lead}; {len(ids):,} {kind} look like codes ({word(tokens[ids[0]])} … {word(tokens[ids[-1]])})"
    rule += "".join(f"; {len(found):,} more look like {name}" for name, found in others.items())
    return _Choice(ids, rule, others={**others, **_rest(rest, list(codes))})


def _strings(vocabulary: Vocabulary | None, rows: int) -> dict[int, str]:
    """The tokens that have both a string and a row."""
    tokens = vocabulary.tokens[:rows] if vocabulary is not None else ()
    return {id: token for id, token in enumerate(tokens) if token is not None}


def _rest(ids: Sequence[int], taken: Sequence[int]) -> dict[str, list[int]]:
    """The ids that are not among those taken."""
    known = set(taken)
    left = [id for id in ids if id not in known]
    return {"other added": left} if left else {}


def _lacking(checkpoint: Checkpoint, base: Checkpoint, rows: int) -> tuple[list[int], str]:
    base_rows = base.matrices["input"].shape[0]
    if checkpoint.vocabulary is not None and base.vocabulary is not None:
        known = set(base.vocabulary.tokens)
        tokens = checkpoint.vocabulary.tokens[:rows]
        ids = [id for id, token in enumerate(tokens) if token is not None and token not in known]
        if ids:
            return ids, f"{len(ids):,} tokens that the base {base.path} lacks"
    beyond = list(range(base_rows, rows))
    return beyond, f"{len(beyond):,} rows beyond the {base_rows:,} of the base {base.path}"
