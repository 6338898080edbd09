"""What every quantiser is: a way into a space, codebooks that add up there, and a way back.

z = inward(x), r_1 = z; c_l = argmin_k |r_l - q_k^(l)|² - p_k^(l); r_{l+1} = r_l - q_{c_l}^(l); x̂ = outward(Σ_l q_{c_l}^(l)).
Source: residual quantisation as in TIGER (Rajput et al. 2023). Product quantisation and FSQ are the case in which the
codebooks of the levels live in different dimensions. Prices p are those of optimal transport: they even out the use of a
level's codes; zero prices choose the nearest code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gti_diag.errors import InputError
from gti_diag.files import atomic

from .reproducible import one_thread

BLOCK = 1024  # rows encoded at once, always as many: a row's codes do not depend on how many others there are


@dataclass(frozen=True)
class Layers:
    """x ↦ W_n(…ReLU(W_1 x + b_1)…) + b_n, then tanh if `bounded`; no layers: x itself."""

    weights: tuple[Float[Tensor, "_ _"], ...] = ()
    biases: tuple[Float[Tensor, " _"], ...] = ()
    bounded: bool = False

    def __call__(self, x: Float[Tensor, "items _"]) -> Float[Tensor, "items _"]:
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.relu(x) if number else x
            x = x @ weight.double().T + bias.double()
        return x.tanh() if self.bounded else x


@dataclass(frozen=True)
class Quantiser:
    """Codebooks of every level in the inner space, prices of their codes, and the ways in and out."""

    name: str
    books: tuple[Float[Tensor, "codes dim"], ...]
    prices: tuple[Float[Tensor, " codes"], ...] = ()
    inward: Layers = field(default_factory=Layers)
    outward: Layers | None = field(default_factory=Layers)  # None: there is no way back

    def latent(self, vectors: Float[Tensor, "items _"]) -> Float[Tensor, "items dim"]:
        """The vectors in the inner space, in blocks of one size."""
        with one_thread():
            parts = []
            for block in vectors.double().split(BLOCK):
                rows = torch.zeros(BLOCK, vectors.shape[1], dtype=torch.float64)
                rows[: len(block)] = block
                parts.append(self.inward(rows)[: len(block)])
            return torch.cat(parts) if parts else torch.zeros(0, self.books[0].shape[1], dtype=torch.float64)

    def costs(self, residual: Float[Tensor, "items dim"], level: int) -> Float[Tensor, "items codes"]:
        """|r - q_k|² - p_k of each item and code of a level."""
        book = self.books[level].double()
        squared = residual.square().sum(1, keepdim=True) - 2 * residual @ book.T + book.square().sum(1)
        return squared - self.prices[level] if self.prices else squared

    def encode(self, vectors: Float[Tensor, "items _"]) -> Int[Tensor, "items levels"]:
        """The codes of each row, coarse to fine; ties go to the lowest code."""
        codes = [self._encode(block) for block in self.latent(vectors).split(BLOCK)]
        return torch.cat(codes) if codes else torch.zeros(0, len(self.books), dtype=torch.long)

    def _encode(self, block: Float[Tensor, "items dim"]) -> Int[Tensor, "items levels"]:
        residual = torch.zeros(BLOCK, block.shape[1], dtype=torch.float64)
        residual[: len(block)] = block
        chosen = []
        with one_thread():
            for level, book in enumerate(self.books):
                chosen.append(self.costs(residual, level).argmin(dim=1))
                residual = residual - book.double()[chosen[-1]]
        return torch.stack(chosen, dim=1)[: len(block)]

    def summed(self, codes: Int[Tensor, "items levels"], *, levels: int | None = None) -> Float[Tensor, "items dim"]:
        """Σ_l q_{c_l}^(l) over the first `levels` levels (all of them by default)."""
        total = torch.zeros(len(codes), self.books[0].shape[1], dtype=torch.float64)
        for book, column in list(zip(self.books, codes.T, strict=True))[:levels]:
            total += book.double()[column]
        return total

    def decode(
        self, codes: Int[Tensor, "items levels"], *, levels: int | None = None
    ) -> Float[Tensor, "items _"] | None:
        """The vectors that codes stand for, from the first `levels` levels; None if there is no way back."""
        return None if self.outward is None else self.outward(self.summed(codes, levels=levels))


@dataclass(frozen=True)
class Fitted:
    """A quantiser and the codes of the rows that it was fitted to."""

    quantiser: Quantiser
    codes: Int[Tensor, "items levels"]


def check_sizes(sizes: Sequence[int]) -> None:
    """Raises: InputError unless there are 1…26 levels of 2 codes or more."""
    if not 1 <= len(sizes) <= 26 or min(sizes) < 2:
        raise InputError(f"codes per level are {list(sizes)}: give 1…26 levels of 2 codes or more")


def save_quantiser(quantiser: Quantiser, folder: Path) -> Path:
    """Write `quantiser.safetensors`: all that encoding new items needs.

    Raises:
        InputError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for level, book in enumerate(quantiser.books):
        tensors[f"books.{level}"] = book
    for level, price in enumerate(quantiser.prices):
        tensors[f"prices.{level}"] = price
    for way, layers in (("inward", quantiser.inward), ("outward", quantiser.outward)):
        for number, (weight, bias) in enumerate(zip(*_pair(layers), strict=True)):
            tensors |= {f"{way}.{number}.weight": weight, f"{way}.{number}.bias": bias}
    notes = {
        "name": quantiser.name,
        "bounded": str(int(quantiser.inward.bounded)),
        "back": str(int(quantiser.outward is not None)),
    }
    path = folder / "quantiser.safetensors"
    with atomic(path) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary, metadata=notes)
    return path


def load_quantiser(folder: Path) -> Quantiser:
    """Read what `save_quantiser` wrote.

    Raises:
        InputError: no such file, or not ours.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / "quantiser.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `gti-train sids` (codes that were brought have none)")
    try:
        with safe_open(path, framework="pt") as file:
            notes, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _assembled(notes, tensors)
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: no quantiser of ours ({error}); make it again with `gti-train sids`") from error


def _assembled(notes: dict[str, str], tensors: dict[str, Tensor]) -> Quantiser:
    def numbered(pattern: str) -> tuple[Any, ...]:
        found: list[Tensor] = []
        while (name := pattern.format(len(found))) in tensors:
            found.append(tensors[name])
        return tuple(found)

    ways = {way: (numbered(way + ".{}.weight"), numbered(way + ".{}.bias")) for way in ("inward", "outward")}
    return Quantiser(
        notes["name"],
        (tensors["books.0"], *numbered("books.{}")[1:]),
        numbered("prices.{}"),
        Layers(*ways["inward"], bounded=notes["bounded"] == "1"),
        Layers(*ways["outward"]) if notes["back"] == "1" else None,
    )


def _pair(layers: Layers | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return ((), ()) if layers is None else (layers.weights, layers.biases)
