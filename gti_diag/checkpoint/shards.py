"""Tensors spread over several files, with an index or without."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from .places import Folder, read_json
from .records import Matrix, bad

Reader = Callable[[Folder, str], dict[str, Matrix]]
AGAIN = "copy or download it again"


class Shards(Mapping[str, Matrix]):
    """Tensors by name; a file's header is read when one of its tensors is first asked for."""

    def __init__(self, folder: Folder, files: Mapping[str, str], read: Reader) -> None:
        self.folder, self.files, self.read = folder, files, read
        self.opened: dict[str, dict[str, Matrix]] = {}

    def __getitem__(self, name: str) -> Matrix:
        file = self.files[name]
        if file not in self.opened:
            self.opened[file] = self.read(self.folder, file)
        if name not in self.opened[file]:
            raise bad(f"{self.folder.root}/{file}", f"lacks tensor {name!r} that the index places there")
        return self.opened[file][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def indexed(folder: Folder, index: str, read: Reader) -> Shards:
    """The tensors that `index` ("weight_map": tensor -> file) lists.

    Raises:
        InputError: the index is damaged, names a file outside the folder, or names one that is not there.
    """
    where = f"{folder.root}/{index}"
    files = read_json(folder, index).get("weight_map")
    if not (isinstance(files, dict) and files and all(isinstance(file, str) for file in files.values())):
        raise bad(where, "has no usable weight_map", AGAIN)
    present = set(folder.names())
    for file in sorted(set(files.values())):
        if PurePosixPath(file).name != file or "\\" in file or file in ("", ".", ".."):
            raise bad(where, f"names the shard {file!r}, which is not a plain file name", "the index is damaged")
        if file not in present:
            raise bad(where, f"names the shard {file!r}, which is not there", AGAIN)
    return Shards(folder, files, read)


def together(folder: Folder, names: Sequence[str], read: Reader) -> dict[str, Matrix]:
    """The tensors of all `names`. Numbered parts must all be there: nothing else says that one is missing.

    Raises:
        InputError: a part is missing, or two files hold one tensor.
    """
    for name in names:
        part = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(\..*)", name)
        if part is None:
            continue
        for number in range(1, int(part[3]) + 1):
            if f"{part[1]}-{number:05}-of-{part[3]}{part[4]}" not in names:
                raise bad(folder.root, f"lacks part {number} of {int(part[3])} of {part[1]}", AGAIN)
    tensors: dict[str, Matrix] = {}
    for name in names:
        found = read(folder, name)
        double = next((tensor for tensor in found if tensor in tensors), None)
        if double is not None:
            raise bad(
                folder.root, f"has {double!r} in {name} and in another file ({', '.join(names[:4])})", "name one file"
            )
        tensors |= found
    return tensors
