"""Reference vectors for RSA: what the new tokens should resemble, one vector a token, from a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gti_diag.errors import InputError

SAVED = ("item_means", "codebooks")  # what gti.json names, first the one to judge by: what a code means is its items
SUFFIXES = (".npy", ".npz", ".safetensors", ".pt")


def load_reference(path: str | Path, tokens: Sequence[str]) -> Tensor:
    """n × k float64 vectors in the order of `tokens`, from one matrix in token order or vectors keyed by token string.

    Raises:
        InputError: unreadable file, unknown suffix, wrong number of rows, a token without a vector, NaN or infinity.
    """
    file = Path(path)
    content = _read(file)
    if isinstance(content, Mapping) and len(content) == 1 and next(iter(content.values())).ndim == 2:
        content = next(iter(content.values()))
    matrix = _keyed(file, content, tokens) if isinstance(content, Mapping) else content
    if matrix.ndim != 2:
        raise InputError(
            f"{file}: a reference is a matrix of n tokens × k numbers, this has shape {tuple(matrix.shape)}"
        )
    if len(matrix) != len(tokens):
        raise InputError(
            f"{file}: the reference has {len(matrix):,} rows, but there are {len(tokens):,} new tokens; "
            "give one row a token in token order, or vectors keyed by token string"
        )
    matrix = matrix.double()
    bad = ~torch.isfinite(matrix).all(dim=1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(f"{file}: row {row} ({tokens[row]!r}) of the reference holds NaN or infinity")
    return matrix


def counts_of(sidecar: Mapping[str, Any], ids: Tensor) -> Tensor:
    """How many items carry each of the tokens `ids`, by gti.json."""
    named, counts = list(sidecar["ids"]), sidecar["counts"]
    known = dict(zip(named, counts, strict=True))
    return torch.tensor([known[id] for id in ids.tolist()])


def _read(file: Path) -> Any:
    if file.suffix not in SUFFIXES:
        raise InputError(f"{file}: a reference is one of {' '.join(SUFFIXES)}")
    try:
        return _READERS[file.suffix](file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such reference file") from error
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: cannot be read as a {file.suffix} file: {first}") from error


def _numpy(file: Path) -> Any:
    import numpy as np

    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(content))
    with content:
        return {name: torch.from_numpy(np.atleast_1d(content[name])) for name in content.files}


def _safetensors(file: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(file)


def _torch(file: Path) -> Any:
    content = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping):
        return {name: torch.as_tensor(value) for name, value in content.items()}
    return torch.as_tensor(content)


_READERS = {".npy": _numpy, ".npz": _numpy, ".safetensors": _safetensors, ".pt": _torch}


def _keyed(file: Path, content: Mapping[str, Tensor], tokens: Sequence[str]) -> Tensor:
    missing = [token for token in tokens if token not in content]
    if missing:
        raise InputError(
            f"{file}: no vector for {len(missing):,} of {len(tokens):,} new tokens, the first is {missing[0]!r}; "
            "key the vectors by token string, or give a single matrix in token order"
        )
    vectors = [content[token].flatten() for token in tokens]
    if len({len(vector) for vector in vectors}) > 1:
        raise InputError(f"{file}: the reference vectors differ in length")
    return torch.stack(vectors)
