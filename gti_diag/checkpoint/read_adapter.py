"""PEFT adapters: the rows that the model holds once the adapter is merged into its base.

Storage as PEFT 0.21 writes it (peft/utils/save_and_load.py): whole copies (`modules_to_save`), the base's own matrix where it
was resized or is targeted (`base_layer`, `original_module`), LoRA on an embedding (A is r × vocabulary, B is dim × r), LoRA
on the head, and replaced rows (`trainable_token_indices`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .layouts import bare
from .lazy import Tensor, kind_of, torch
from .records import Matrix, bad

ROWS = ".token_adapter.base_layer"  # where replaced rows wrap the module that holds the others
COPY = tuple(f"{at}.modules_to_save{name}.weight" for at in ("", ROWS) for name in ("", ".default"))
OWN = (".base_layer.weight", ".original_module.weight", f"{ROWS}.original_module.weight")
PLAIN = (".weight", f"{ROWS}.weight")  # a copy where `modules_to_save` lists the module, else the base's own matrix
DELTA = (".token_adapter.trainable_tokens_delta", ".trainable_tokens_delta")
LORA = ((".lora_embedding_A", ".lora_embedding_B"), (".lora_B.weight", ".lora_A.weight"))  # vocabulary first
READ = {*COPY, *OWN, *PLAIN, *DELTA, *LORA[0], *LORA[1]}
MERGE = "merge the adapter into its base first"
PATIENCE = 2  # seconds for one pattern


@dataclass(frozen=True)
class Adapter:
    """The adapter's tensors under bare names, and its configuration."""

    where: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Matrix]

    def of(self, module: str, *endings: str) -> Matrix | None:
        """The tensor of `module` (a full name or its last part) with one of the endings."""
        for ending in endings:
            for start in (module, module.rsplit(".", 1)[-1]):
                hits = [
                    m for n, m in self.tensors.items() if n == f"{start}{ending}" or n.endswith(f".{start}{ending}")
                ]
                if len(hits) == 1:
                    return hits[0]
        return None

    def has(self, module: str) -> bool:
        """Whether anything is stored of the module."""
        return self.of(module, *READ) is not None

    def unread(self, module: str) -> Iterator[str]:
        """Names of tensors that change the rows of `module` in a way that is not read; biases change no row."""
        tail = re.compile(rf"(?:.*\.)?{re.escape(module.rsplit('.', 1)[-1])}((?:\.[a-zA-Z_]\w*){{1,4}})")
        for name in self.tensors:
            hit = tail.fullmatch(name)
            if hit is not None and hit[1] not in READ and not name.endswith(".bias"):
                yield name

    def copies(self, module: str) -> bool:
        """Whether `modules_to_save` lists the module: by its last part, as PEFT compares.

        Source: get_peft_model and _set_trainable in peft/utils/other.py.
        """
        listed = self.config.get("modules_to_save")
        return isinstance(listed, list) and any(isinstance(name, str) and module.endswith(name) for name in listed)

    def scale(self, module: str, rank: int) -> float:
        """α/r, or α/√r for rank-stabilised LoRA; the first pattern that fits gives α.

        Source: peft/tuners/lora/layer.py; get_pattern_key in peft/utils/other.py.
        """
        alpha = self.config.get("lora_alpha")
        patterns = self.config.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
            if self._fits(pattern, module):
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e30 or rank < 1:
            raise bad(self.where, f"has lora_alpha {alpha!r} and rank {rank}")
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    def _fits(self, pattern: str, module: str) -> bool:
        import regex  # transformers brings it; unlike `re` it can be told to stop

        try:
            return regex.match(rf"(.*\.)?({pattern})$", module, timeout=PATIENCE) is not None
        except regex.error as error:
            raise bad(self.where, f"has alpha_pattern {pattern!r}, no regular expression ({error})") from error
        except TimeoutError as error:
            raise bad(self.where, f"has alpha_pattern {pattern!r}, which takes more than {PATIENCE} s to match",
                      "write it without repetitions inside repetitions") from error  # fmt: skip


def adapter(where: str, config: Mapping[str, Any], tensors: Mapping[str, Matrix]) -> Adapter:
    return Adapter(where, config, {bare(name): tensor for name, tensor in tensors.items()})


@dataclass(frozen=True)
class End:
    """What the adapter stores of one end of the model.

    `copy` is a matrix of its own in place of the base's, `own` the base's (where it was resized or is targeted), `rows`
    replace those numbered `ids`, and `lora` are two factors, vocabulary × r and r × dim, still to be scaled.
    """

    module: str
    copy: Matrix | None
    own: Matrix | None
    rows: Matrix | None
    ids: tuple[int, ...]
    lora: tuple[Tensor, Tensor] | None


def _end(found: Adapter, module: str) -> End:
    strange = next(found.unread(module), None)
    if strange is not None:
        method = "DoRA" if "lora_magnitude_vector" in strange else found.config.get("peft_type")
        raise bad(found.where, f"uses {method} on {module} ({strange}), which is not read", MERGE)
    plain = found.of(module, *PLAIN)
    copied = found.copies(module)
    factors = None
    for first, second in LORA:
        a, b = found.of(module, first), found.of(module, second)
        if a is not None and b is not None:
            turned = first == LORA[0][0]
            factors = (a.rows().T, b.rows().T) if turned else (a.rows(), b.rows())
    rows = found.of(module, *DELTA)
    return End(
        module=module,
        copy=found.of(module, *COPY) or (plain if copied else None),
        own=found.of(module, *OWN) or (None if copied else plain),
        rows=rows,
        ids=() if rows is None else _listed(found, rows, module),
        lora=factors,
    )


def _listed(found: Adapter, rows: Matrix, module: str) -> tuple[int, ...]:
    """The ids of the replaced rows, in the order in which they are stored."""
    listed = found.config.get("trainable_token_indices")
    if listed is None:  # the TrainableTokens method itself
        listed = found.config.get("token_indices")
    if isinstance(listed, Mapping):
        listed = next((ids for name, ids in listed.items() if module == name or module.endswith("." + name)), None)
    if not isinstance(listed, list) or len(listed) != rows.shape[0]:
        raise bad(found.where, f"replaces {rows.shape[0]} rows of {module} but lists other ids in adapter_config.json")
    if not all(type(id) is int and id >= 0 for id in listed) or len(set(listed)) < len(listed):
        raise bad(found.where, f"lists ids that are no rows of {module}, or one twice")
    return tuple(listed)


@dataclass(frozen=True)
class Merged:
    """Both ends with the adapter merged: `head` is None where one matrix serves both, or the base stores none.

    `replaced` are the rows of the input that the adapter lists, `left_behind` says that a tied head keeps the base's rows
    while the input is a copy of the adapter's own, `notes` what else a reader must know of the merge.
    """

    entry: Matrix
    head: Matrix | None
    replaced: tuple[int, ...]
    notes: tuple[str, ...] = ()
    left_behind: bool = False


def merged(found: Adapter, base: Mapping[str, Matrix], modules: tuple[str, str], *, tied: bool) -> Merged:
    """The base's matrices as `PeftModel.from_pretrained(…).merge_and_unload()` leaves them.

    `modules` are the names of the input's and the head's module. Where one matrix serves both ends and neither is copied,
    what the adapter does to either end is done to that matrix.

    Raises:
        InputError: the adapter's tensors do not fit the base, or use a method that is not read (DoRA, LoHa, …).
    """
    first, last = (_end(found, module) for module in modules)
    if tied and last.rows is None:  # PEFT ties the replaced rows of both ends
        last = dataclasses.replace(last, rows=first.rows, ids=first.ids)
    notes: tuple[str, ...] = ()
    if last.rows is not None and last.lora is not None:
        last, notes = dataclasses.replace(last, lora=None), (LOST,)
    own = first.own or (last.own if tied else None) or base["input"]
    if tied and first.copy is None and last.copy is None:
        both = _with(found, _with(found, own, first), last)
        return Merged(both, None, first.ids, (*notes, *((BOTH_ENDS,) if last.lora is not None else ())))
    start = last.copy or (own if tied else last.own or base.get("output"))
    head = None if start is None else _with(found, start, last)
    if tied and head is not None:
        head = dataclasses.replace(head, name=f"{last.module}.weight")
    return Merged(_with(found, first.copy or own, first), head, first.ids, notes, tied and last.copy is None)


LOST = "the adapter replaces rows of the head and has LoRA on it: PEFT's merge drops that LoRA, and so do these rows"
BOTH_ENDS = (
    "the base is tied: merging adds the head's LoRA to the one matrix that serves both ends (until it is merged, "
    "only the head shows it)"
)


def _with(found: Adapter, matrix: Matrix, end: End) -> Matrix:
    """The matrix with the rows that the end replaces and the product that it adds."""
    if end.rows is not None:
        matrix = _replaced(found, matrix, end.rows, end.ids)
    return matrix if end.lora is None else _plus(found, matrix, *end.lora, end.module)


def _plus(found: Adapter, matrix: Matrix, left: Tensor, right: Tensor, module: str) -> Matrix:
    """matrix + left · right · scale, in float32, a row at a time."""
    if (left.shape[0], right.shape[1]) != matrix.shape or left.shape[1] != right.shape[0]:
        raise bad(found.where, f"its LoRA matrices of {module} make {left.shape[0]}×{right.shape[1]}, the base has "
                  f"{matrix.shape[0]}×{matrix.shape[1]}", "give the base that it was trained on")  # fmt: skip
    wide, scale = right.float(), found.scale(module, left.shape[1])

    def fetch(ids: Tensor) -> Tensor:
        return matrix.fetch(ids).float() + left[ids].float() @ wide * scale

    return Matrix(name=matrix.name, shape=matrix.shape, kind="float32", fetch=fetch)


def _replaced(found: Adapter, matrix: Matrix, rows: Matrix, listed: Sequence[int]) -> Matrix:
    """The matrix with the rows `listed` replaced; those that follow its last row are added."""
    count = max(matrix.shape[0], max(listed, default=-1) + 1)
    beyond = {id for id in listed if id >= matrix.shape[0]}
    if len(beyond) < count - matrix.shape[0]:  # never counted row by row: an id may be any number
        lost = next(id for id in range(matrix.shape[0], count) if id not in beyond)
        raise bad(found.where, f"trains rows up to {count - 1:,} of a matrix whose base has {matrix.shape[0]:,}, and row "
                  f"{lost:,} is stored nowhere", "save it again with save_embedding_layers=True")  # fmt: skip
    if rows.shape[1:] != matrix.shape[1:]:
        raise bad(found.where, f"replaces rows of {rows.shape[1]} numbers, the base's have {matrix.shape[1]}",
                  "give the base that it was trained on")  # fmt: skip
    dtype = torch.promote_types(matrix.dtype, rows.dtype)
    place = torch.full((count,), -1)
    place[torch.tensor(listed, dtype=torch.long)] = torch.arange(len(listed))

    def fetch(ids: Tensor) -> Tensor:
        out = torch.empty((len(ids), matrix.shape[1]), dtype=dtype)
        old, new = (place[ids] < 0).nonzero()[:, 0], (place[ids] >= 0).nonzero()[:, 0]
        out[old] = matrix.fetch(ids[old]).to(dtype)
        out[new] = rows.fetch(place[ids[new]]).to(dtype)
        return out

    return Matrix(name=matrix.name, shape=(count, matrix.shape[1]), kind=kind_of(dtype), fetch=fetch)
