"""DeepSpeed universal checkpoints: zero/<parameter>/fp32.pt, one whole parameter each.

Source: deepspeed/checkpoint/ds_to_universal.py. Consolidated ZeRO files (zero_to_fp32.py) are ordinary torch files.
"""

import dataclasses
import functools

from .places import Folder, Window
from .read_pickle import described, read_window, told, whole_numbers
from .records import Matrix, bad
from .shards import Shards


def read_universal(folder: Folder) -> Shards:
    """The parameters below `zero/`."""
    zero, shapes = folder.into("zero"), functools.cache(lambda: _shapes(folder))

    def read(zero: Folder, name: str) -> dict[str, Matrix]:
        return _parameter(zero, name, shapes().get(name))

    return Shards(zero, {name: name for name in zero.folders()}, read)


def _shapes(folder: Folder) -> dict[str, tuple[int, ...]]:
    """Parameter shapes from the model states, which stage 3 needs: it stores parameters flat."""
    file = next((name for name in folder.names() if name.endswith("model_states.pt")), None)
    if file is None:
        return {}
    where = f"{folder.root}/{file}"
    with told(where):
        found = described(Window(folder, file))
        groups = found.get("param_shapes") if isinstance(found, dict) else None
        listed = [group for group in groups if isinstance(group, dict)] if isinstance(groups, list) else []
        return {str(name): whole_numbers(shape) for group in listed for name, shape in group.items()}


def _parameter(zero: Folder, name: str, shape: tuple[int, ...] | None) -> dict[str, Matrix]:
    found = read_window(zero.into(name), "fp32.pt", 0, None, shape=shape)
    tensor = found.get("param", found.get("tensor"))  # a dictionary from stages 1 and 2, a bare tensor from stage 3
    if tensor is None:
        raise bad(f"{zero.root}/{name}/fp32.pt", "holds no parameter", "it is not a universal checkpoint")
    return {name: dataclasses.replace(tensor, name=name)}
