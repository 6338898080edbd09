"""torch.save files (.bin, .pt, .pth): the pickle is read without running code, the tensors stay in the file.

Loading under FakeTensorMode builds tensors that know their byte offset but hold no data, so rows come by byte range.
Source: https://docs.pytorch.org/docs/stable/notes/serialization.html (torch.load with FakeTensorMode).
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping

from .lazy import Tensor, kind_of, torch
from .places import Folder, Window, present
from .ranges import stored_rows
from .records import Matrix, bad

DEEPEST = 6  # {"model": {"module": {...}}} and the like; optimisers nest deeper
LARGEST_OLD_FILE = 8 << 30


def read_pickle(folder: Folder, file: str) -> dict[str, Matrix]:
    """Every tensor of one file, nested dictionaries joined by dots, none of its data.

    Raises:
        InputError: the pickle asks for code, or the file is damaged.
    """
    return read_window(folder, file, 0, None)


def read_window(
    folder: Folder, file: str, start: int, stop: int | None, *, shape: tuple[int, ...] | None = None
) -> dict[str, Matrix]:
    """The same for a torch.save archive that is bytes `start` to `stop` of a file; flat tensors take `shape` if it fits."""
    present(folder, file)
    where, window = f"{folder.root}/{file}", Window(folder, file, start, stop)
    zipped = window.read(4) == b"PK\x03\x04"
    window.seek(0)
    if not zipped:
        return _old(window, where)
    found = described(window, where)
    end = start + window.length
    tensors, strided = {}, []
    for name, tensor in flat(found):
        offset = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
        if offset is None:
            continue
        if not tensor.is_contiguous():  # transposed or expanded: no rows to read by range
            strided.append(name)
            continue
        first = start + offset + tensor.storage_offset() * tensor.element_size()
        if first + tensor.numel() * tensor.element_size() > end:
            raise bad(where, f"tensor {name!r} ends beyond the file", "it is truncated: copy or download it again")
        whole = tuple(tensor.shape)
        if shape is not None and len(whole) == 1 and math.prod(shape) == whole[0]:
            whole = shape
        tensors[name] = stored_rows(folder, file, name=name, offset=first, shape=whole, kind=kind_of(tensor.dtype))
    if strided and not tensors:
        raise bad(where, f"tensor {strided[0]!r} is stored transposed or expanded", "save it again after .contiguous()")
    return tensors


def described(window: Window, where: str) -> object:
    """The pickled object with tensors that hold no data but know their byte offset."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return load(window, where)


def _old(window: Window, where: str) -> dict[str, Matrix]:
    """Files of torch before 1.6 have no archive to read by range: they are read whole."""
    if window.length > LARGEST_OLD_FILE:
        raise bad(where, f"is a {window.length:,} byte file of the pre-1.6 format, which must be read whole",
                  "save it again with a current torch or as safetensors")  # fmt: skip
    return {name: held(name, tensor) for name, tensor in flat(load(window, where))}


def held(name: str, tensor: Tensor) -> Matrix:
    """A matrix that is already in memory."""
    return Matrix(name=name, shape=tuple(tensor.shape), kind=kind_of(tensor.dtype), fetch=lambda ids: tensor[ids])


def load(window: Window, where: str) -> object:
    """torch.load(weights_only=True), with its refusals in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a damaged pickle is said once, by us
            return torch.load(window, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|[Uu]nsupported (?:global|class)\W*(?:GLOBAL)?) ?([\w.]+)", str(error))
        if wanted is None:
            raise bad(where, "is not a readable torch file", "copy or download it again") from error
        raise bad(where, f"is a pickle that would run code to load ({wanted[1]})",
                  "convert it to safetensors where you trust it") from error  # fmt: skip
    except Exception as error:  # the unpickler and the archive reader fail in many ways on damaged files
        raise bad(where, f"is not a readable torch file ({' '.join(str(error).split())[:120]})",
                  "copy or download it again") from error  # fmt: skip


def flat(found: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors by dotted name; optimiser states are left out."""
    if isinstance(found, torch.Tensor):
        yield prefix or "tensor", found.detach()
    elif isinstance(found, Mapping) and depth < DEEPEST:
        for key, value in found.items():
            if not str(key).startswith("optim"):
                yield from flat(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
