"""DeepSpeed universal checkpoints: zero/<parameter>/fp32.pt, one whole parameter each.

Source: deepspeed/checkpoint/ds_to_universal.py. Consolidated ZeRO files (zero_to_fp32.py) are ordinary torch files.
"""

import dataclasses

from .places import Folder
from .read_pickle import read_pickle
from .records import Matrix, bad
from .shards import Shards


def read_universal(folder: Folder) -> Shards:
    """The parameters below `zero/`."""
    zero = folder.into("zero")
    return Shards(zero, {name: name for name in zero.folders()}, _parameter)


def _parameter(zero: Folder, name: str) -> dict[str, Matrix]:
    found = read_pickle(zero.into(name), "fp32.pt")
    tensor = found.get("param", found.get("tensor"))  # a dictionary from stages 1 and 2, a bare tensor from stage 3
    if tensor is None:
        raise bad(f"{zero.root}/{name}/fp32.pt", "holds no parameter", "it is not a universal checkpoint")
    return {name: dataclasses.replace(tensor, name=name)}
