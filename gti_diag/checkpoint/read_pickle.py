"""torch.save files (.bin, .pt, .pth): the pickle is read into inert records, the tensors stay in the file.

An archive (torch 1.6 and later) is an uncompressed zip file with data.pkl and one member a storage; a file from before is five
pickles, then each storage: its number of elements in eight bytes, and the elements.
Source: torch/serialization.py (_save, _legacy_save); torch/_utils.py for the order of the _rebuild_… arguments.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gti_diag.errors import InputError
from gti_diag.foreign import inert_pickle
from gti_diag.foreign.inert_pickle import Damaged, Name, Persistent, Record, Refused

from .places import Folder, Window, present
from .ranges import stored_rows
from .records import SIZES, Matrix, bad

DEEPEST = 6  # {"model": {"module": {...}}} and the like; optimisers nest deeper
MOST_TENSORS = 10**6
ZIP_DIRECTORY = 8 * 10**6  # bytes; a member takes about 60
MAGIC = 0x1950A86A20F9469CFC6C
AGAIN = "copy or download it again"
# Names that files of tensors hold. None of them is imported, so this says what a file is, not what is safe.
ALLOWED = re.compile(
    r"collections\.(OrderedDict|defaultdict|Counter)|_codecs\.encode|(builtins|__builtin__)\.(set|frozenset|bytearray|complex|slice)"
    r"|torch\.(Size|device|Tensor|\w+Storage|b?float\w*|half|double|u?int\d+|long|short|bool|complex\w*|q\w*int\w*|bits\w+|strided)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.(Parameter|Buffer)"
    r"|torch\.storage\.\w+Storage|torch\.serialization\._get_layout"
    r"|numpy(\._?core(\.multiarray|\.numeric)?)?\.(scalar|_reconstruct|_frombuffer|ndarray|dtype)|numpy\.dtypes\.\w+DType"
)
STORAGES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
            "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128",
            "ComplexFloat": "complex64"}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor as its pickle describes it: a strided view of one storage."""

    storage: str
    kind: str
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True


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
    where = f"{folder.root}/{file}"
    present(folder, file)
    with told(where):
        return _tensors(Window(folder, file, start, stop), where, start=start, shape=shape)


def _tensors(window: Window, where: str, *, start: int, shape: tuple[int, ...] | None) -> dict[str, Matrix]:
    folder, file = window.folder, window.name
    found, places = _opened(window)
    tensors, strided = {}, []
    for name, tensor in _flat(found, where):
        if not tensor.contiguous:  # transposed or expanded: no rows to read by range
            strided.append(name)
            continue
        begin, length, located = places(tensor.storage, tensor.kind)
        first, size = tensor.offset * SIZES[tensor.kind], math.prod(tensor.shape) * SIZES[tensor.kind]
        if first + size > length or begin + first + size > window.length:
            raise bad(where, f"tensor {name!r} ends beyond the file", f"it is truncated: {AGAIN}")
        whole = tensor.shape
        if shape is not None and len(whole) == 1 and math.prod(shape) == whole[0]:
            whole = shape
        tensors[name] = _matrix(
            folder, file, name=name, shape=whole, kind=tensor.kind, first=partial(_begin, located, start + first)
        )
    if strided and not tensors:
        raise bad(where, f"tensor {strided[0]!r} is stored transposed or expanded", "save it again after .contiguous()")
    return tensors


def described(window: Window) -> Any:
    """The pickled object as plain values and inert records (call it under `told`)."""
    return _opened(window)[0]


def _begin(located: Callable[[], int], offset: int) -> int:
    return located() + offset


# Where a storage lies (a lower bound), how many bytes it has, and a function that gives the place exactly.
Places = Callable[[str, str], tuple[int, int, Callable[[], int]]]


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """What is wrong with a torch file, in one line."""
    try:
        yield
    except Refused as error:
        raise bad(where, f"is a pickle that would run code to load ({error})",
                  "convert it to safetensors where you trust it") from error  # fmt: skip
    except InputError:
        raise
    except Exception as error:  # the archive reader fails in many ways on damaged files
        raise bad(where, f"is not a readable torch file ({' '.join(str(error).split())[:120]})", AGAIN) from error


def _opened(window: Window) -> tuple[Any, Places]:
    zipped = window.read(4) == b"PK\x03\x04"
    window.seek(0)
    where = f"{window.folder.root}/{window.name}"
    return _archive(window, where) if zipped else _old(window, where)


def _archive(window: Window, where: str) -> tuple[Any, Places]:
    window.most = ZIP_DIRECTORY
    with zipfile.ZipFile(window) as archive:  # type: ignore[arg-type]
        members = {member.filename: member for member in archive.infolist()}
    inside = next(
        (name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl") or name == "data.pkl"), None
    )
    if inside is None:
        raise Damaged("it holds no data.pkl")
    packed = next(
        (
            name
            for name, m in members.items()
            if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size
        ),
        None,
    )
    if packed is not None:
        raise Damaged(f"its member {packed!r} is compressed, which torch never does")

    def begin(name: str) -> int:
        """Behind the member's local header: 30 bytes, then a name and an extra field."""
        member = members[name]
        window.seek(member.header_offset)
        head = window.read(30)
        return member.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")

    def whole(name: str) -> bytes:
        window.seek(begin(name))
        return window.read(members[name].file_size)

    window.most = inert_pickle.BYTES
    if members.get(f"{inside}byteorder") is not None and whole(f"{inside}byteorder") == b"big":
        raise bad(where, "was written on a big-endian machine", "save it again on a usual one")
    found = inert_pickle.load(io.BytesIO(whole(f"{inside}data.pkl")), _allowed)

    def places(key: str, kind: str) -> tuple[int, int, Callable[[], int]]:
        name = f"{inside}data/{key}"
        if name not in members:
            raise bad(where, f"lacks the storage {key!r} that it speaks of", AGAIN)
        return members[name].header_offset, members[name].file_size, functools.cache(lambda: begin(name))

    return found, places


def _old(window: Window, where: str) -> tuple[Any, Places]:
    stream = io.BufferedReader(window, 1 << 16)
    magic, _, _ = (inert_pickle.load(stream, _allowed) for _ in range(3))  # … the protocol, and sizes of C's integers
    if magic != MAGIC:
        raise Damaged("it does not begin as one")
    found, keys = inert_pickle.load(stream, _allowed), inert_pickle.load(stream, _allowed)
    at, spans = stream.tell(), {}
    kinds = {storage.id[2]: kind_of_storage(storage.id[1]) for storage in _storages(found)}
    for key in keys:
        window.seek(at)
        count = int.from_bytes(window.read(8), "little")
        size = count * SIZES[str(kinds[key])]
        if at + 8 + size > window.length:
            raise bad(where, f"its storage {key!r} ends beyond the file", f"it is truncated: {AGAIN}")
        spans[key] = at + 8, size
        at += 8 + size
    return found, lambda key, kind: (*spans[key], lambda: spans[key][0])


def _allowed(name: str) -> bool:
    return ALLOWED.fullmatch(name) is not None


def _matrix(
    folder: Folder, file: str, *, name: str, shape: tuple[int, ...], kind: str, first: Callable[[], int]
) -> Matrix:
    """Rows by byte range; where they begin is asked for when the first one is."""

    @functools.cache
    def made() -> Matrix:
        return stored_rows(folder, file, name=name, offset=first(), shape=shape, kind=kind)

    stored = None if not math.prod(shape[1:]) else lambda ids: made().stored(ids)  # type: ignore[misc]
    return Matrix(name=name, shape=shape, kind=kind, fetch=lambda ids: made().fetch(ids), stored=stored)


def _storages(found: Any) -> Iterator[Persistent]:
    """Every storage that a value speaks of, each once."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list, tuple, Record, Persistent)):
            if id(value) in seen:
                continue
            seen.add(id(value))
        if isinstance(value, Persistent):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Record):
            waiting += [value.arguments, value.state, value.items, value.pairs]


def _flat(found: Any, where: str) -> Iterator[tuple[str, Stored]]:
    """Tensors by dotted name; optimiser states are left out."""
    count, waiting = 0, [("", found, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        count += 1
        if count > MOST_TENSORS:
            raise bad(where, f"holds more than {MOST_TENSORS:,} values", "it is no model")
        tensor = stored(value)
        if tensor is not None:
            yield prefix or "tensor", tensor
        pairs = value.pairs if isinstance(value, Record) else value
        if isinstance(pairs, Mapping) and depth < DEEPEST:
            named = [(str(key), item) for key, item in pairs.items()]
            waiting += [
                (f"{prefix}.{key}" if prefix else key, item, depth + 1)
                for key, item in reversed(named)
                if not key.startswith("optim")
            ]


def stored(value: Any) -> Stored | None:
    """The tensor that a record would have built, where its data are in the file; None for anything else."""
    while isinstance(value, Record) and value.name in (
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
    ):
        value = value.arguments[0] if value.arguments else None
    if isinstance(value, Record) and value.name == "torch._tensor._rebuild_from_type_v2" and len(value.arguments) == 4:
        function, _, arguments, _ = value.arguments
        value = Record(str(function), arguments) if isinstance(arguments, tuple) else None
    if not isinstance(value, Record) or value.name not in REBUILT or len(value.arguments) < 4:
        return None
    storage, offset, size, strides, *others = value.arguments
    if (
        not isinstance(storage, Persistent)
        or not isinstance(storage.id, tuple)
        or len(storage.id) < 5
        or storage.id[0] != "storage"
    ):
        return None
    typed = others[2] if value.name == REBUILT[2] and len(others) > 2 else storage.id[1]
    kind = kind_of_storage(typed)
    if kind is None or not isinstance(storage.id[2], str) or storage.id[5:] not in ((), (None,)):
        return None
    shape, steps = whole_numbers(size), whole_numbers(strides)
    if len(shape) != len(steps) or whole_numbers((offset,))[0] + math.prod(shape) >= 2**62:
        raise Damaged("a tensor of impossible shape")
    return Stored(storage.id[2], kind, offset, shape, steps)


REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")


def kind_of_storage(name: Any) -> str | None:
    """torch's name of the type of a storage class or a dtype; None if it is neither."""
    if not isinstance(name, Name):
        return None
    kind = STORAGES.get(name.name.removesuffix("Storage"))
    return kind if kind is not None else name.name if name.name in SIZES else None


def whole_numbers(numbers: Any) -> tuple[int, ...]:
    """A shape: a tuple of whole numbers, or torch.Size of one."""
    if isinstance(numbers, Record) and numbers.name == "torch.Size" and len(numbers.arguments) == 1:
        numbers = numbers.arguments[0]
    if not isinstance(numbers, (tuple, list)) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise Damaged("a shape is no list of whole numbers")
    return tuple(numbers)
