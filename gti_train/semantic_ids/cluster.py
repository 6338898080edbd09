"""Codes of a catalogue in shards, by many workers (Ray Data): encode, count prefixes, move, separate inside each prefix.

The driver holds the codebooks, a count a prefix and the items of overfull prefixes; a worker holds one batch, or the items of one
prefix. The same codes as on one machine: workers run the functions of `shards`, which look at no other item.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gti_diag.errors import InputError

from .quantiser import Quantiser
from .shards import Batch, encoded, moved_prefixes, placed, separated, shard_files
from .uniqueness import Prefix

BATCH = 4096  # items that a worker holds at once while it encodes


@dataclass(frozen=True)
class Summary:
    """What was done, and the most that a worker's largest batch took."""

    items: int
    prefixes: int
    moved_prefixes: int
    batch_bytes: int


def cluster_codes(folder: Path, quantiser: Quantiser, out: Path, *, workers: int | None = None) -> Summary:
    """Read the shards of `folder`, write `item_id`, `row` and `codes` of every item as Parquet to `out`.

    Joins the Ray cluster that RAY_ADDRESS names, or starts one of `workers` processes on this machine.

    Raises:
        InputError: Ray is missing, there are no shards, or more items than codes.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--cluster needs Ray: pip install gti-diag[cluster]") from None
    files = shard_files(folder)
    if not ray.is_initialized():
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.default_hash_shuffle_parallelism = max(2 * (workers or 1), len(files))
    shared = ray.put(quantiser)
    encode: Any = _encode
    coded = ray.data.read_parquet([str(file) for file in files]).map_batches(
        encode, batch_size=BATCH, batch_format="numpy", fn_kwargs={"quantiser": shared}
    )
    coded = coded.materialize()
    counts = _counts(coded)
    capacity = int(np.prod([len(book) for book in quantiser.books], dtype=float).clip(max=2**62))
    if sum(counts.values()) > capacity:
        raise InputError(f"{sum(counts.values())} items, but {capacity} codes in all: use more codes or levels")
    moves = moved_prefixes(_overfull(coded, counts, quantiser), Counter(counts), quantiser)
    done = (
        coded.map_batches(partial(placed, moves=moves), batch_format="numpy")
        .groupby("prefix")
        .map_groups(_separate, batch_format="numpy", fn_kwargs={"quantiser": shared})
    )
    out.mkdir(parents=True, exist_ok=True)
    done.write_parquet(str(out))
    row = sum(book.shape[1] for book in quantiser.books[:1]) * 8 + 4 * len(quantiser.books)
    return Summary(sum(counts.values()), len(counts), len(moves), BATCH * row)


def _encode(batch: Batch, quantiser: Any) -> Batch:
    return encoded(batch, _own(quantiser))


def _separate(group: Batch, quantiser: Any) -> Batch:
    return separated(group, _own(quantiser))


def _own(quantiser: Any) -> Quantiser:
    """The quantiser itself, where Ray hands over a reference to it."""
    import ray

    return ray.get(quantiser) if isinstance(quantiser, ray.ObjectRef) else quantiser


def _counts(coded: Any) -> dict[Prefix, int]:
    """Items of each prefix."""
    counted = coded.map_batches(_count, batch_format="numpy")
    found: Counter[Prefix] = Counter()
    for batch in counted.iter_batches(batch_format="numpy"):
        for key, count in zip(batch["prefix"], batch["count"], strict=True):
            found[_prefix(key)] += int(count)
    return dict(found)


def _count(batch: Batch) -> Batch:
    keys, counts = np.unique(batch["prefix"].astype(str), return_counts=True)
    return {"prefix": keys.astype(object), "count": counts}


def _overfull(coded: Any, counts: dict[Prefix, int], quantiser: Quantiser) -> dict[Prefix, Batch]:
    """The items of prefixes that hold more than the last level has codes; all others stay with the workers."""
    room = len(quantiser.books[-1])
    keys = {prefix for prefix, count in counts.items() if count > room}
    if not keys:
        return {}
    parts: dict[Prefix, list[Batch]] = {prefix: [] for prefix in keys}
    for batch in coded.map_batches(partial(_only, keys=keys), batch_format="numpy").iter_batches(batch_format="numpy"):
        owners = [_prefix(key) for key in batch["prefix"]]
        for prefix in set(owners):
            mask = np.array([owner == prefix for owner in owners])
            parts[prefix].append({name: batch[name][mask] for name in ("row", "latent")})
    return {
        prefix: {name: np.concatenate([part[name] for part in found]) for name in ("row", "latent")}
        for prefix, found in parts.items()
    }


def _only(batch: Batch, keys: set[Prefix]) -> Batch:
    mask = np.array([_prefix(key) in keys for key in batch["prefix"]], dtype=bool)
    return {name: batch[name][mask] for name in ("row", "prefix", "latent")}


def _prefix(key: str) -> Prefix:
    return tuple(int(part) for part in str(key).split())
