"""What prompts begin with, run once and kept for every query to come.

Where the document is read before the query, everything but the query is known beforehand: its keys and values are kept, and a
query costs its own tokens for each document. What is paid is memory, a row of keys and values a layer for every token of the
beginning: a text of some hundred tokens takes megabytes, item tokens take a few hundred kilobytes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gti_diag.errors import InputError
from gti_train.model.caches import filled, kept, takes, with_cache
from gti_train.model.continuations import right_padded

from .scoring import TOKENS_AT_ONCE, Overrides, inputs_of, log_odds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEEDED = ("attention_mask", "position_ids", "inputs_embeds")


class Beginnings:
    """Keys and values of some beginnings, at the length of the longest; shorter ones are masked behind their end.

    Raises:
        InputError: there is none, one is empty, or the model keeps no keys and values that a prompt can go on from (recurrent
            states; a window, which counts what is masked).
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: "PreTrainedModel",
        beginnings: Sequence[Sequence[int]],
        *,
        overrides: Overrides | None = None,
        at_once: int = TOKENS_AT_ONCE,
    ):
        body: Any = model.base_model
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
        if not kinds <= {"full_attention"} or not takes(body, NEEDED, cache=True):
            raise InputError(f"{type(model).__name__} keeps no keys and values that prompts could go on from")
        if not beginnings or not all(beginnings):
            raise InputError("a prompt begins with nothing that could be kept")
        self.model, self.at_once = model, at_once
        self.lengths = torch.tensor([len(ids) for ids in beginnings], device=model.device)
        self.layers: list[tuple[Tensor, Tensor]] = []
        longest = int(self.lengths.max())
        size = max(1, at_once // longest)
        for start in range(0, len(beginnings), size):
            part = range(start, min(start + size, len(beginnings)))
            ids, _ = right_padded([beginnings[i] for i in part])
            given = inputs_of(model, ids.to(model.device), part, overrides)
            cache: Any = kept(body(**given, **with_cache(body, None)))
            for number, layer in enumerate(cache.layers):
                if not start:
                    shape = (len(beginnings), layer.keys.shape[1], longest, layer.keys.shape[3])
                    self.layers.append((layer.keys.new_zeros(shape), layer.values.new_zeros(shape)))
                for whole, own in zip(self.layers[number], (layer.keys, layer.values), strict=True):
                    whole[start : start + len(part), :, : own.shape[2]] = own

    @property
    def bytes(self) -> int:
        """What a beginning takes in memory, in the mean and without what it is padded by."""
        row = sum(x.shape[1] * x.shape[3] * x.element_size() for pair in self.layers for x in pair)
        return round(row * float(self.lengths.float().mean()))

    @torch.inference_mode()
    def score(
        self, places: Sequence[int], rests: Sequence[Sequence[int]], rows: tuple[int, int]
    ) -> Float[Tensor, " prompts"]:
        """log p(yes) − log p(no) of the prompts that go on from the beginnings at `places` with `rests`; see `scoring.score`."""
        if not len(places):
            return torch.zeros(0, device=self.model.device)
        size = max(1, self.at_once // (int(self.lengths.max()) + max(map(len, rests))))
        parts = [slice(start, start + size) for start in range(0, len(places), size)]
        return torch.cat([self._scores(places[part], rests[part], rows) for part in parts])

    def _scores(self, places: Sequence[int], rests: Sequence[Sequence[int]], rows: tuple[int, int]) -> Tensor:
        body: Any = self.model.base_model
        device = self.model.device
        ids, real = right_padded(rests)
        at = torch.tensor(list(places), device=device)
        lengths, given = self.lengths[at], dict[str, Tensor]()
        longest = int(lengths.max())
        if bool((lengths != longest).any()):
            before = torch.arange(longest, device=device) < lengths[:, None]
            given["attention_mask"] = torch.cat([before.long(), torch.ones_like(ids, device=device)], 1)
            given["position_ids"] = lengths[:, None] + torch.arange(ids.shape[1], device=device)
        cache = filled((keys[at, :, :longest], values[at, :, :longest]) for keys, values in self.layers)
        hidden = body(input_ids=ids.to(device), **given, **with_cache(body, cache)).last_hidden_state
        return log_odds(self.model, hidden[torch.arange(len(places)), real.sum(1) - 1], rows)
