"""One walk over all rows of a matrix: what a scan needs to know of each, in memory of some hundred bytes a row."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gti_diag.checkpoint import Matrix
from gti_diag.measures import geometry, twins, untrained
from gti_diag.measures.tiles import evenly, wide_tiles

READ = 1 << 22  # numbers read at a time
SAMPLED = 4096  # rows, evenly chosen, from which the mean row is taken; and known unused rows, at most
LARGEST = 1e100  # norms beyond it are as good as infinite

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class RowFacts:
    """Of every row: its norm (NaN: the row is not finite), the first row that equals it, its sketch, how far apart storage
    can tell rows like it (`spacing`), and its cosine distance from known unused rows (where some are known)."""

    norms: Tensor
    first_equal: Tensor
    sketch: Tensor
    spacing: Tensor
    distance: Tensor | None
    known_distance: Tensor | None
    undefined: dict[str, str] = field(default_factory=dict)

    @property
    def finite(self) -> Tensor:
        return torch.isfinite(self.norms)


def read_facts(
    matrix: Matrix,
    *,
    unused: Tensor,
    seen: Callable[[Tensor], None] = lambda tile: None,
    progress: Progress = lambda stage, share: None,
    max_memory: int = 2 * 10**9,
) -> RowFacts:
    """Read every row once, in order; `seen` gets each tile as stored. `unused` are ids of rows that no text trains."""
    count, dim = matrix.shape
    undefined: dict[str, str] = {}
    mean = _mean(matrix)
    axis, known = None, None
    try:
        axis, known = untrained.cosine_distances(_usable(matrix, unused), mean=mean)
    except ValueError as error:
        undefined["cosine distance from unused rows"] = str(error)
    lines = twins.sketch_lines(dim)
    columns = torch.cat([lines, mean[:, None], (mean if axis is None else axis)[:, None]], dim=1)
    numbers = torch.empty(count, columns.shape[1] + 2, dtype=torch.float64)
    equal, start, bits = _Equal(), 0, _bits(matrix)
    size = max(1, min(READ, max_memory // 256) // dim)
    for tile in matrix.tiles(size=size):
        seen(tile)
        equal.add(tile)
        for wide in wide_tiles(_floats(tile)):
            own = numbers[start : start + len(wide)]
            own[:, :-2] = wide @ columns
            own[:, -2] = _norms(wide)
            own[:, -1] = _spacing(wide, matrix.dtype, bits)
            start += len(wide)
        progress(f"scanning {matrix.name}", start / count)
    norms = numbers[:, -2].clone()
    norms[~(norms <= LARGEST)] = torch.nan
    distance = None if axis is None else _distances(numbers[:, -4], numbers[:, -3], norms, mean=mean, axis=axis)
    return RowFacts(
        norms,
        equal.first(matrix, size),
        numbers[:, : lines.shape[1]].clone(),
        numbers[:, -1].clone(),
        distance,
        known,
        undefined,
    )


class _Equal:
    """Which row first had the same values, −0 as 0: by a 64-bit sum of each row, and of those with equal sums by 128-bit digest."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, tile: Tensor) -> None:
        words = _words(tile)
        odd = torch.randint(-(1 << 62), 1 << 62, (words.shape[1],), generator=torch.Generator().manual_seed(0)) * 2 + 1
        self.sums.append(words @ odd)  # modulo 2⁶⁴

    def first(self, matrix: Matrix, size: int) -> Tensor:
        """Rows with the sum of another are read again, `size` at a time."""
        sums = torch.cat(self.sums)
        found = torch.arange(len(sums))
        _, place, counts = sums.unique(return_inverse=True, return_counts=True)
        suspects = (counts[place] > 1).nonzero()[:, 0]
        known: dict[bytes, int] = {}
        for ids in suspects.split(size) if len(suspects) else ():
            for id, row in zip(ids.tolist(), _words(matrix.rows(ids)).numpy(), strict=True):
                found[id] = known.setdefault(hashlib.blake2b(row, digest_size=16).digest(), id)
        return found


def _words(tile: Tensor) -> Tensor:
    """The bytes of each row as 64-bit integers, filled up with zeros; −0 as 0."""
    octets = (_floats(tile) + 0.0).contiguous().view(torch.uint8)
    return torch.nn.functional.pad(octets, (0, -octets.shape[1] % 8)).view(torch.int64)


def _floats(tile: Tensor) -> Tensor:
    """Eight-bit floats as bfloat16, which holds them exactly: torch adds none of them."""
    return tile.to(torch.bfloat16) if tile.dtype.itemsize == 1 else tile


def _bits(matrix: Matrix) -> int | None:
    """Bits of a number in a block format, from its name: `Q4_K` has 4; None for plain numbers."""
    named = re.search(r"\d+", matrix.packing or "")
    return None if matrix.packing is None else int(named[0]) if named else 8


def _spacing(wide: Tensor, dtype: torch.dtype, bits: int | None) -> Tensor:
    """The rows are overwritten."""
    return geometry.spacing_norms(wide, dtype) if bits is None else geometry.packed_step_norms(wide, bits)


def _norms(wide: Tensor) -> Tensor:
    """‖x‖ of each row; of one whose squares are all 0 its largest number: only a row of zeros is zero."""
    found = torch.linalg.vector_norm(wide, dim=1)
    lost = found == 0
    if bool(lost.any()):
        found[lost] = torch.linalg.vector_norm(wide[lost], torch.inf, dim=1)
    return found


def _mean(matrix: Matrix) -> Tensor:
    """Mean of at most 4,096 finite rows, evenly chosen."""
    rows = _floats(matrix.rows(evenly(matrix.shape[0], SAMPLED))).double()
    rows = rows[torch.linalg.vector_norm(rows, dim=1) <= LARGEST]
    return rows.mean(0) if len(rows) else torch.zeros(matrix.shape[1], dtype=torch.float64)


def _usable(matrix: Matrix, unused: Tensor) -> Tensor:
    """Those of the known unused rows that are finite and not zero: a zero row was never written at all."""
    rows = _floats(matrix.rows(unused[evenly(len(unused), SAMPLED)] if len(unused) else unused)).double()
    norms = torch.linalg.vector_norm(rows, dim=1)
    return rows[(norms > 0) & (norms <= LARGEST)]


def _distances(along_mean: Tensor, along_axis: Tensor, norms: Tensor, *, mean: Tensor, axis: Tensor) -> Tensor:
    """1 − cos(x − mean, axis), from x·mean, x·axis and ‖x‖; NaN on the mean itself."""
    lengths = (norms.square() - 2 * along_mean + float(mean @ mean)).clamp(min=0).sqrt()
    return 1 - (along_axis - float(axis @ mean)) / lengths
