"""Codes of a catalogue in shards: pure functions of a shard, or of the items of one prefix, that any machine can run.

A batch is a dictionary of columns: `item_id`, `row` (the item's place in the catalogue, which settles ties) and `vector`;
encoding adds `codes` and `latent`. What `cluster` does with many workers, these functions do one after the other.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from gti_diag.errors import InputError

from .quantiser import Quantiser
from .uniqueness import Prefix, assigned, leaving

Batch = dict[str, np.ndarray]


def encoded(batch: Batch, quantiser: Quantiser) -> Batch:
    """Codes and inner vectors of a batch of vectors."""
    vectors = torch.from_numpy(np.stack(list(batch["vector"])).astype(np.float64))
    codes = quantiser.encode(vectors).numpy().astype(np.int32)
    return {
        "item_id": batch["item_id"],
        "row": batch["row"],
        "codes": codes,
        "prefix": prefix_keys(codes),
        "latent": quantiser.latent(vectors).numpy(),
    }


def prefix_keys(codes: np.ndarray) -> np.ndarray:
    """All codes but the last as one string an item, to group by."""
    return np.array([" ".join(map(str, row[:-1])) for row in codes.tolist()], dtype=object)


def moved_prefixes(
    overfull: Mapping[Prefix, Batch], counts: Counter[Prefix], quantiser: Quantiser
) -> dict[int, Prefix]:
    """Row → new prefix, for the items that must leave an overfull prefix; `counts` are those of all prefixes."""
    moves: dict[int, Prefix] = {}
    for prefix in sorted(overfull):
        order = np.argsort(overfull[prefix]["row"])
        rows, latent = (
            overfull[prefix]["row"][order],
            torch.from_numpy(np.stack(list(overfull[prefix]["latent"]))[order]),
        )
        moves |= {int(rows[place]): target for place, target in leaving(quantiser, latent, counts, prefix)}
    return moves


def placed(batch: Batch, moves: Mapping[int, Prefix]) -> Batch:
    """The batch with the prefixes of `moves`; `changed` marks the items that moved."""
    codes, changed = np.stack(list(batch["codes"])), np.zeros(len(batch["row"]), dtype=bool)
    for place, row in enumerate(batch["row"].tolist()):
        if row in moves:
            codes[place, :-1], changed[place] = moves[row], True
    return batch | {"codes": codes, "prefix": prefix_keys(codes), "changed": changed}


def separated(group: Batch, quantiser: Quantiser) -> Batch:
    """The items of one prefix, each with a last code of its own."""
    order = np.argsort(group["row"])
    codes = torch.from_numpy(np.stack(list(group["codes"]))[order].astype(np.int64))
    latent = torch.from_numpy(np.stack(list(group["latent"]))[order].astype(np.float64))
    if group["changed"].any() or len(set(codes[:, -1].tolist())) < len(codes):
        codes[:, -1] = assigned(quantiser, latent, codes)
    return {"item_id": group["item_id"][order], "row": group["row"][order], "codes": codes.numpy().astype(np.int32)}


def shard_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder.

    Raises:
        InputError: none, or one without the columns that are needed.
    """
    from pyarrow.parquet import ParquetFile

    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise InputError(f"{folder}: no Parquet shards; write item_id, row and vector to FOLDER/*.parquet")
    for file in files:
        missing = {"item_id", "row", "vector"} - set(ParquetFile(file).schema_arrow.names)
        if missing:
            raise InputError(f"{file} has no column {sorted(missing)[0]}: a shard has item_id, row and vector")
    return files


def sample(files: list[Path], rows: int, *, seed: int = 0) -> torch.Tensor:
    """At most `rows` vectors, drawn evenly over all shards, to fit codebooks on."""
    from pyarrow.parquet import ParquetFile

    counts = [ParquetFile(file).metadata.num_rows for file in files]
    total = sum(counts)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:rows])
    parts, start = [], 0
    for file, count in zip(files, counts, strict=True):
        wanted = chosen[(chosen >= start) & (chosen < start + count)] - start
        parts += list(_taken(file, wanted))
        start += count
    return torch.from_numpy(np.concatenate(parts))


def _taken(file: Path, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The vectors of these rows of a shard, a block of it in memory at a time."""
    from pyarrow.parquet import ParquetFile

    start = 0
    for block in ParquetFile(file).iter_batches(batch_size=8192, columns=["vector"]):
        here = wanted[(wanted >= start) & (wanted < start + len(block))] - start
        if len(here):
            yield np.stack(block.column(0).take(here).to_numpy(zero_copy_only=False)).astype(np.float64)
        start += len(block)
