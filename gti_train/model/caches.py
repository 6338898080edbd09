"""Keys and values that a model kept, handed over under the name that its transformers gives them.

The argument and the field of the output are called `past_key_values` up to transformers 5.23, `cache` since 5.24 (where the
old name warns until 5.40). Everything here that speaks to a cache goes through these four functions.
"""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import Cache

NAMES = ("cache", "past_key_values")  # the newer first: a model that takes both warns of the older


def cache_name(body: nn.Module) -> str | None:
    """What the body of a model calls a cache; None if it takes none."""
    takes = inspect.signature(body.forward).parameters
    return next((name for name in NAMES if name in takes), None)


def takes(body: nn.Module, arguments: Iterable[str], *, cache: bool = False) -> bool:
    """Whether the body of a model takes all these arguments, and a cache if one is wanted."""
    known = inspect.signature(body.forward).parameters
    return set(arguments) <= set(known) and not (cache and cache_name(body) is None)


def with_cache(body: nn.Module, cache: "Cache | None") -> dict[str, Any]:
    """The keyword arguments that let the body go on from `cache` (None: from nothing) and keep what it sees.

    Raises:
        ValueError: it takes no cache.
    """
    name = cache_name(body)
    if name is None:
        raise ValueError(f"{type(body).__name__} takes no keys and values")
    return {name: cache, "use_cache": True}


def kept(output: Any) -> "Cache":
    """The cache in the output of a body that was run `with_cache`."""
    return next(getattr(output, name) for name in NAMES if getattr(output, name, None) is not None)


def filled(states: Iterable[tuple[Tensor, Tensor]]) -> "Cache":
    """A cache that holds the keys and values of each layer."""
    from transformers import DynamicCache

    return DynamicCache([(keys, values) for keys, values in states])
