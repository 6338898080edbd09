"""Texts encoded once: in parts, kept under a hash of the texts and of what encodes them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.files import atomic

PART = 2048  # texts between two savings
BATCH = 32


@dataclass(frozen=True)
class Identity:
    """What vectors depend on beside the texts: the encoder's name, its files (name, bytes, time), its limit in tokens."""

    encoder: str
    files: tuple[tuple[str, int, int], ...]
    limit: int

    @classmethod
    def of(cls, encoder: str, place: str, limit: int) -> "Identity":
        """Files of a folder are known by size and time of change, a hub id by its name."""
        folder = Path(place)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
        return cls(encoder, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats), limit)

    def key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self)).encode())
        for text in texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()[:32]


def cached(
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], Float[Tensor, "batch dim"]],
    identity: Identity,
    cache: Path | None,
    progress: Callable[[float, str], None],
) -> Float[Tensor, "texts dim"]:
    """`encode` of all texts, in batches of like length; parts that an earlier run left in `cache` are not encoded again.

    Raises:
        InputError: the cache cannot be written.
    """
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), texts[row]))  # the largest batch comes first
    folder = None if cache is None else cache / identity.key(texts)
    parts = []
    for start in range(0, len(order), PART):
        file = None if folder is None else folder / f"part-{start // PART:05d}.safetensors"
        rows = order[start : start + PART]
        parts.append(_part([texts[row] for row in rows], encode, file))
        done = start + len(rows)
        progress(done / len(order), f"{done}/{len(order)} texts")
    vectors = torch.cat(parts)
    return vectors[torch.tensor(order).argsort()]


def _part(texts: Sequence[str], encode: Callable[[Sequence[str]], Tensor], file: Path | None) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if file is not None and file.is_file():
        try:
            return load_file(file)["vectors"]
        except (OSError, SafetensorError, KeyError):
            pass  # a damaged part is made again
    vectors = torch.cat([encode(texts[start : start + BATCH]).float().cpu() for start in range(0, len(texts), BATCH)])
    if file is not None:
        with atomic(file) as temporary:
            save_file({"vectors": vectors.contiguous().clone()}, temporary)
    return vectors
