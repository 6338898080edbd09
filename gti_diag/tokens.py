"""Which rows are new, which are reserved, which are text: named, disjoint groups that cover every row."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint.records import Checkpoint, Vocabulary, bad

# A code token: brackets, a family name, perhaps a level (digits or one letter), a code. `<a_12>`, `<|sid_3|>`,
# `[C1_24]`, `<sid_0_255>`, `<item_9>`, `<s_a_7>`.
CODE = re.compile(
    r"(?:<\|?|\[|\|)(?P<family>[A-Za-z]+(?:[_-][A-Za-z]+)*?)(?:[_-]?(?P<digits>\d+)|[_-](?P<letter>[A-Za-z]))??"
    r"[_:-](?P<code>\d+)(?:\|?>|\]|\|)"
)
# Placeholders that pretraining vocabularies ship: numbered like codes, but not the user's.
PLACEHOLDER = re.compile(
    r".*(unused|reserved|extra_id|extra|dummy|control|placeholder|special|madeupword|pad|blank|filler|loc|seg|vq|fim)"
    r"[_-]?(?:token)?[_-]?\d+\W*",
    re.IGNORECASE,
)
USUAL_SPECIALS = {
    "<unk>",
    "<s>",
    "</s>",
    "<pad>",
    "<mask>",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "<|endoftext|>",
}
LEAST_FAMILY = 2  # one lone token is not a code book
RANGES = re.compile(r"\d+(:\d+)?(,\d+(:\d+)?)*")


@dataclass(frozen=True)
class Group:
    """Rows under one name, with their readable strings and, for codes, the 1-based level and the family of each."""

    name: str
    ids: Tensor
    tokens: tuple[str, ...]
    levels: Tensor | None = None
    families: tuple[str, ...] | None = None

    @property
    def count(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Partition:
    """Disjoint groups covering all rows, and the sentence that says how the new ones were found."""

    rule: str
    groups: Mapping[str, Group]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Choice:
    """Ids chosen as new, why, and levels if the source states them."""

    ids: list[int]
    rule: str
    levels: list[int] | None = None


def partition(
    checkpoint: Checkpoint, *, new: str = "auto", base: Checkpoint | None = None, scan: bool | None = None
) -> Partition:
    """Split the rows of the input matrix into `text`, `new` and `reserved`.

    Args:
        checkpoint: what was opened.
        new: the selector: `auto`, a regular expression searched in the token strings, id ranges `5:9,12` (half open),
            or `@file` with one token a line.
        base: the checkpoint it was extended from.
        scan: read the text rows to find never-trained ones (default: when `checkpoint` is on this machine).

    Raises:
        InputError: the selector is unusable or matches nothing.
    """
    rows = checkpoint.matrices["input"].shape[0]
    strings = display(checkpoint.vocabulary, rows)
    choice = _auto(checkpoint, base, rows) if new == "auto" else _selected(checkpoint, new, strings)
    notes = [*checkpoint.notes, *_size_notes(checkpoint.vocabulary, rows)]
    chosen = set(choice.ids)
    reserved = _reserved(checkpoint.vocabulary, rows)
    causes = {id: cause for id, cause in reserved.items() if id not in chosen}
    text = [id for id in range(rows) if id not in chosen and id not in causes]
    if checkpoint.identity is None if scan is None else scan:
        causes |= _never_trained(checkpoint, text, unused=[i for i, c in causes.items() if c != SPECIAL])
        text = [id for id in text if id not in causes]
    if causes:
        counted = Counter(causes.values()).most_common()
        notes.append(f"reserved {len(causes)} rows: " + ", ".join(f"{count} {cause}" for cause, count in counted))

    def group(name: str, ids: Sequence[int]) -> Group:
        return Group(name, torch.tensor(ids, dtype=torch.long), tuple(strings[id] for id in ids))

    groups = {"text": group("text", text)}
    if choice.ids:
        groups["new"] = _with_codes(group("new", choice.ids), choice.levels)
    if causes:
        groups["reserved"] = group("reserved", sorted(causes))
    return Partition(choice.rule, groups, tuple(notes))


def display(vocabulary: Vocabulary | None, rows: int) -> list[str]:
    """Readable string of every row: byte-level "Ġthe" and sentencepiece "▁the" become " the"; "#7" where there is none."""
    tokens = vocabulary.tokens if vocabulary is not None else ()
    added = vocabulary.added if vocabulary is not None else {}
    plain = [token for id, token in enumerate(tokens) if token and id not in added]
    if any(token.startswith("Ġ") for token in plain):
        read = _from_bytes
    elif any(token.startswith("▁") for token in plain):
        read = _from_pieces
    else:
        read = str
    found = [
        f"#{id}" if token is None else token if id in added else read(token) for id, token in enumerate(tokens[:rows])
    ]
    return found + [f"#{id}" for id in range(len(found), rows)]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes. Source: https://github.com/openai/gpt-2 encoder.py bytes_to_unicode."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _from_bytes(token: str) -> str:
    if not all(char in _BYTES for char in token):
        return token
    return bytes(_BYTES[char] for char in token).decode("utf-8", errors="replace")


def _from_pieces(token: str) -> str:
    return token.replace("▁", " ")


# --- new rows -------------------------------------------------------------------------------------------------------


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
        raise bad(f"--new {selector!r}", f"needs token strings, but {checkpoint.path} has no tokenizer file",
                  "select by id ranges such as 5:9")  # fmt: skip
    tokens = checkpoint.vocabulary.tokens
    ids = [
        id for id, text in enumerate(strings) if id < len(tokens) and tokens[id] is not None and pattern.search(text)
    ]
    if not ids:
        raise bad(f"--new {selector!r}", f"matches none of the {len(strings):,} tokens of {checkpoint.path}")
    return _Choice(ids, f"selector {selector!r} matched {len(ids)} token strings")


def _ranges(checkpoint: Checkpoint, selector: str, rows: int) -> _Choice:
    ids: dict[int, None] = {}
    for part in selector.split(","):
        first, colon, last = part.partition(":")
        start, stop = int(first), int(last) if colon else int(first) + 1
        if not start < stop <= rows:
            raise bad(f"--new {selector!r}", f"{part} is not a range of rows of {checkpoint.path}",
                      f"rows are 0:{rows}")  # fmt: skip
        ids |= dict.fromkeys(range(start, stop))
    return _Choice(list(ids), f"selector {selector!r}: {len(ids)} rows by id")


def _listed(checkpoint: Checkpoint, file: Path, strings: list[str]) -> _Choice:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise bad(f"--new @{file}", f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    raw = checkpoint.vocabulary.tokens if checkpoint.vocabulary is not None else ()
    by_string = {text: id for id, text in reversed(list(enumerate(strings)))}
    by_string |= {token: id for id, token in reversed(list(enumerate(raw[: len(strings)]))) if token is not None}
    missing = [line for line in lines if line not in by_string]
    if missing or not lines:
        what = f"lists {missing[0]!r}, which is no token of {checkpoint.path}" if missing else "lists no token"
        raise bad(f"--new @{file}", what, f"{len(missing)} of {len(lines)} lines match nothing" if missing else "")
    return _Choice(list(dict.fromkeys(by_string[line] for line in lines)), f"the {len(lines)} tokens listed in {file}")


def _auto(checkpoint: Checkpoint, base: Checkpoint | None, rows: int) -> _Choice:
    """The first rule that finds something: sidecar, what the base lacks, added tokens that look like codes."""
    sidecar = checkpoint.sidecar
    if sidecar is not None:
        ids = sidecar["ids"]
        return _Choice(list(ids), f"gti.json lists {len(ids)} new tokens", sidecar.get("levels"))
    if base is not None:
        choice = _lacking(checkpoint, base, rows)
        if choice.ids:
            return choice
    added = checkpoint.vocabulary.added if checkpoint.vocabulary is not None else {}
    codes = code_like({id: token for id, token in added.items() if id < rows})
    tried = "no gti.json" + (", nothing that the base lacks" if base is not None else "")
    if codes:
        families = sorted({family for family, _ in codes.values()})
        first, last = strings_at(added, min(codes), max(codes))
        return _Choice(
            sorted(codes),
            f"{tried}; {len(codes)} added tokens look like codes ({first} … {last}; {_plural(families)})",
        )
    return _Choice([], f"no new tokens: {tried}, no added token that looks like a code")


def strings_at(tokens: Mapping[int, str], *ids: int) -> list[str]:
    return [tokens[id] for id in ids]


def _plural(families: Sequence[str]) -> str:
    return ("family " if len(families) == 1 else "families ") + ", ".join(families)


def _lacking(checkpoint: Checkpoint, base: Checkpoint, rows: int) -> _Choice:
    base_rows = base.matrices["input"].shape[0]
    beyond = list(range(base_rows, rows))
    if checkpoint.vocabulary is not None and base.vocabulary is not None:
        known = set(base.vocabulary.tokens)
        tokens = checkpoint.vocabulary.tokens[:rows]
        ids = [id for id, token in enumerate(tokens) if token is not None and token not in known]
        if ids:
            return _Choice(ids, f"{len(ids)} tokens that the base {base.path} lacks")
    return _Choice(beyond, f"{len(beyond)} rows beyond the {base_rows:,} of the base {base.path}")


def code_like(tokens: Mapping[int, str]) -> dict[int, tuple[str, str | None]]:
    """Family and level label of every token that is a code of a family of at least two."""
    found = {}
    for id, token in tokens.items():
        match = CODE.fullmatch(token)
        if match and not PLACEHOLDER.fullmatch(token):
            found[id] = _family(match)
    sizes = Counter(family for family, _ in found.values())
    return {id: pair for id, pair in found.items() if sizes[pair[0]] >= LEAST_FAMILY}


def _family(match: re.Match[str]) -> tuple[str, str | None]:
    name, level = match["family"], match["digits"] or match["letter"]
    if level is None and len(name) == 1:  # <a_12>: the letter is the level
        return "codes", name
    return name, level


def _with_codes(group: Group, levels: list[int] | None) -> Group:
    """The group with families and 1-based levels, stated or read off the token strings."""
    codes = code_like(dict(enumerate(group.tokens)))
    if levels is not None:
        return Group(group.name, group.ids, group.tokens, torch.tensor(levels, dtype=torch.long))
    if len(codes) < group.count:
        return group
    families = tuple(codes[place][0] for place in range(group.count))
    labels = [codes[place][1] for place in range(group.count)]
    if None in labels:
        return Group(group.name, group.ids, group.tokens, None, families)
    numbers = {label: place for place, label in enumerate(_ordered(set(labels)), 1)}  # type: ignore[arg-type]
    found = torch.tensor([numbers[label] for label in labels], dtype=torch.long)
    return Group(group.name, group.ids, group.tokens, found, families)


def _ordered(labels: Iterable[str]) -> list[str]:
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdigit() else (1, 0, label))


# --- reserved rows --------------------------------------------------------------------------------------------------

SPECIAL = "special tokens"
NAMELESS = "rows without a token (padding)"
NAMED = "placeholder tokens (unused, reserved, …)"


def _size_notes(vocabulary: Vocabulary | None, rows: int) -> list[str]:
    if vocabulary is None:
        return ["no tokenizer file: tokens are shown as row numbers"]
    if vocabulary.size > rows:
        return [f"the tokenizer has {vocabulary.size:,} ids, the matrix {rows:,} rows: the last tokens have no row"]
    if vocabulary.size < rows:
        return [f"the matrix has {rows:,} rows, the tokenizer {vocabulary.size:,} ids"]
    return []


def _reserved(vocabulary: Vocabulary | None, rows: int) -> dict[int, str]:
    """Rows that no text uses, by what the tokenizer says, with the cause."""
    if vocabulary is None:
        return {}
    causes = {id: SPECIAL for id in vocabulary.special if id < rows}
    causes |= {
        id: SPECIAL for id, token in enumerate(vocabulary.tokens[:rows]) if token and token.strip() in USUAL_SPECIALS
    }
    for id in range(rows):
        token = vocabulary.tokens[id] if id < vocabulary.size else None
        if token is None:
            causes[id] = NAMELESS
        elif PLACEHOLDER.fullmatch(token) and token[0] in "<[|":
            causes[id] = NAMED
    return causes


def _never_trained(checkpoint: Checkpoint, text: list[int], *, unused: list[int]) -> dict[int, str]:
    """Text rows that no training touched: exact copies of another row, or of the norm that all unused rows share.

    The norm counts only if at least 8 unused rows agree in it (standard deviation below 5 % of the mean) and at most
    5 % of the text rows lie within four standard deviations of it: otherwise it is no mark.
    """
    matrix = checkpoint.matrices["input"]
    ids = torch.tensor(text, dtype=torch.long)
    if not len(ids):
        return {}
    norms, keys = [], []
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(matrix.shape[1], 1, generator=generator, dtype=torch.float64)
    for tile in matrix.tiles(ids):
        wide = tile.double()
        norms.append(wide.norm(dim=1))
        keys.append((wide @ probe)[:, 0])
    norm, key = torch.cat(norms), torch.cat(keys)
    causes = {text[place]: "rows identical to another" for place in _copies(matrix, ids, key)}
    if len(unused) >= 8:
        marks = matrix.rows(torch.tensor(unused, dtype=torch.long)).double().norm(dim=1)
        mean, spread = float(marks.mean()), float(marks.std())
        near = (norm - mean).abs() <= 4 * spread
        if mean > 0 and spread < 0.05 * mean and 0 < int(near.sum()) <= 0.05 * len(norm):
            causes |= {text[place]: "rows of the norm that unused rows share" for place in np.flatnonzero(near.numpy())}
    return causes


def _copies(matrix, ids: Tensor, key: Tensor) -> list[int]:
    """Places in `ids` whose row equals another's, found by equal projections, confirmed on the rows."""
    order = key.argsort()
    close = torch.isclose(key[order][1:], key[order][:-1], rtol=1e-12, atol=0.0)
    suspects = torch.unique(torch.cat([order[1:][close], order[:-1][close]]))
    if not len(suspects):
        return []
    rows = matrix.rows(ids[suspects]).double()
    _, place, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return suspects[counts[place] > 1].tolist()
