"""How much of a foreign file is read, inflated, received or waited for. Claims are not believed: what comes is counted."""

import os
from pathlib import Path

import numpy as np

from gti_diag.errors import bad

DESCRIPTION = (
    400 * 10**6
)  # bytes that what a file says of itself may take in memory; a tokenizer of 262,144 tokens takes 350 million


def json_weight(data: bytes) -> int:
    """About how many bytes Python takes to hold a JSON text and its value, from its characters alone.

    A string takes its length and about 60 more, an entry of an object 128, a list or an object 80, a number 36. One wide character
    makes the whole text take 2 or 4 bytes a character while it is read.
    """
    if not data:
        return 0
    widest = int(np.frombuffer(data, dtype=np.uint8).max())
    width = 1 if widest < 0xC4 else 2 if widest < 0xF0 else 4
    strings, commas = data.count(b'"') // 2, data.count(b",")
    numbers = max(0, commas - strings)
    values = (
        60 * strings + 128 * data.count(b":") + 80 * (data.count(b"[") + data.count(b"{")) + 8 * commas + 28 * numbers
    )
    return len(data) * (2 + width) + values


def read_small(path: str | os.PathLike[str], *, most: int = DESCRIPTION // 4) -> bytes:
    """The bytes of a small local file; no more than `most` are read, whatever it claims to be.

    Raises:
        InputError: larger.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise bad(Path(path), f"is larger than {most:,} bytes, more than such a file can be", "name another file")
    return data
