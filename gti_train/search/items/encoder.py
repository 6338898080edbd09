"""From a document to k vectors that a ranker reads in place of its tokens.

An item starts as the rows of the document's first k tokens, its title as a rule: text that the ranker reads already. The
encoder is the first layers of the ranker itself; behind the document it reads k slots, and what it says there is added. That
begins at zero, so training only adds what the first tokens do not tell.
"""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gti_diag.errors import InputError
from gti_train.model.continuations import right_padded
from gti_train.model.loading import best_dtype, products_in, without_bars

from ..pruning.layers import decoder_layers, drop_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "item_encoder.json", "item_encoder.safetensors"
AT_ONCE = 32  # documents in one pass of `encode`


class ItemEncoder(nn.Module):
    """`body` reads documents and `slots`; `out` turns what it says there into what is added, at the length of the start."""

    def __init__(self, body: "PreTrainedModel", slots: int):
        super().__init__()
        dim = body.config.get_text_config().hidden_size
        self.body = body
        rows = cast(nn.Embedding, body.get_input_embeddings()).weight.detach()
        self.slots = nn.Parameter(rows[:: max(1, len(rows) // slots)][:slots].float().clone())
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, documents: Sequence[Sequence[int]]) -> Float[Tensor, "documents slots dim"]:
        """The vectors of documents, given as tokens."""
        count, device = len(self.slots), self.body.device
        ids = right_padded([[*ids, *[0] * count] for ids in documents])[0]
        rows = self.body.get_input_embeddings()(ids.to(device))
        lengths = torch.tensor([len(ids) for ids in documents], device=device)
        at = lengths[:, None] + torch.arange(count, device=device)
        given = rows.index_put((torch.arange(len(documents), device=device)[:, None], at), self.slots.to(rows))
        hidden = self.body(inputs_embeds=given, use_cache=False).last_hidden_state
        said = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        first = torch.arange(count, device=device) % lengths[:, None]  # a document of fewer tokens begins again
        start = rows.gather(1, first[..., None].expand(-1, -1, rows.shape[-1])).float()
        step = self.out(F.rms_norm(said.float(), said.shape[-1:])).float()
        return start + step * torch.linalg.vector_norm(start, dim=-1, keepdim=True) / start.shape[-1] ** 0.5


def encoder_of(ranker: "PreTrainedModel", *, slots: int, layers: int) -> ItemEncoder:
    """An encoder of the first `layers` layers of `ranker`, with weights of its own.

    Raises:
        InputError: more layers than it has, or no slot.
    """
    have = len(decoder_layers(ranker)[2])
    if not 1 <= layers <= have or slots < 1:
        raise InputError(
            f"an encoder of {layers} layers and {slots} slots: the ranker has {have} layers, take one slot or more"
        )
    body: Any = copy.deepcopy(ranker.base_model)
    drop_layers(body, range(layers, have))
    return ItemEncoder(body, slots).to(ranker.device)


@torch.inference_mode()
def encode(
    encoder: ItemEncoder,
    documents: Sequence[Sequence[int]],
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, "documents slots dim"]:
    """The vectors of all documents in float16, as they are cached; batches of similar length, products in the fast type."""
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    parts = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
    device = encoder.body.device
    made = []
    with products_in(best_dtype(device), device):
        for number, part in enumerate(parts, 1):
            made.append(encoder([documents[i] for i in part]).half().cpu())
            progress(number / len(parts))
    return torch.cat(made)[torch.tensor(order).argsort()]


def save_encoder(encoder: ItemEncoder, folder: Path) -> None:
    """Write `folder` (which `encoder/` is within an item folder): a plain transformers body, and what is beside it."""
    from safetensors.torch import save_file

    with without_bars():
        encoder.body.save_pretrained(folder)
    own = {name: value.contiguous() for name, value in encoder.state_dict().items() if not name.startswith("body.")}
    save_file(own, folder / WEIGHTS)
    content = {"schema": 1, "slots": len(encoder.slots)}
    (folder / CONFIG).write_text(json.dumps(content) + "\n", encoding="utf-8")


def load_encoder(folder: Path, dtype: torch.dtype | None = None) -> ItemEncoder:
    """What `save_encoder` wrote.

    Raises:
        InputError: it is not there, or malformed.
    """
    from safetensors.torch import load_file
    from transformers import AutoModel

    from gti_diag.foreign.retrieval_forms import EncoderForm
    from gti_diag.foreign.schemas import read_formed

    form = read_formed(EncoderForm, folder / CONFIG, "name what `gti-train search items` wrote")
    given: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    with without_bars():
        body = AutoModel.from_pretrained(folder, **given)
    encoder = ItemEncoder(body, form.slots)
    encoder.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    return encoder.eval().requires_grad_(False)
