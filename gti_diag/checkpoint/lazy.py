"""torch, imported when something of it is first asked for: what headers say is told without waiting for it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch, Tensor = _Torch(), Any


def kind_of(dtype: "torch.dtype") -> str:
    """torch's name of a storage type, `bfloat16`."""
    return str(dtype).removeprefix("torch.")
