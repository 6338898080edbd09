"""The RQ-VAE of the paper: an autoencoder whose bottleneck is a sum of code vectors.

Encoder and decoder are MLPs of 1024, 512 and 256 units with ReLU and dropout 0.1, the codes have 32 dimensions. Loss:
|x - x̂|² + Σ_l |sg(r_l) - q_l|² + β |r_l - sg(q_l)|² + δ · diversity, each a mean over coordinates.
Source: TIGER (Rajput et al. 2023), LC-Rec (Zheng et al. 2024); diversity: LETTER (Wang et al. 2024).

The quantiser is our own: vector-quantize-pytorch 1.32 draws its k-means start and its restarts from torch's one global
generator and in the order of the rows, knows no LETTER, and brings five packages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .clustering import kmeans
from .quantiser import Fitted, Layers, Quantiser

NO_PROGRESS: Callable[[float, str], None] = lambda share, detail: None  # noqa: E731


@dataclass(frozen=True)
class RqVaeConfig:
    """Settings of the RQ-VAE; `epochs` is ours (the paper trains 20,000), the rest the paper's or LC-Rec's."""

    sizes: tuple[int, ...] = (256, 256, 256, 256)
    dim: int = 32
    hidden: tuple[int, ...] = (1024, 512, 256)
    dropout: float = 0.1
    epochs: int = 300
    warm_epochs: int | None = None  # without codes, a fifth by default: the k-means start sees a space worth dividing
    batch: int = 1024
    learning_rate: float = 1e-3
    commitment: float = 0.25
    diversity: float = 1e-3
    groups: int = 10  # of codes, for the diversity term
    every: int = 10  # epochs between restarts of dead codes and new groups
    seed: int = 0


def rqvae(
    vectors: Float[Tensor, "items dim"], config: RqVaeConfig, *, progress: Callable[[float, str], None] = NO_PROGRESS
) -> Fitted:
    """Train on the rows and encode them.

    Raises:
        InputError: fewer distinct rows than codes on a level.
        ValueError: no epoch is left for the codes.
    """
    warm = config.epochs // 5 if config.warm_epochs is None else config.warm_epochs
    if warm >= config.epochs:
        raise ValueError(f"{config.epochs} epochs, {warm} of them without codes: leave some for the codes")
    x, mean, scale = _standardised(vectors)
    generator = torch.Generator().manual_seed(config.seed)
    encoder, decoder = _mlps(x.shape[1], config, generator)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=config.learning_rate)
    books: list[nn.Parameter] = []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs, config.learning_rate * 0.05)
    groups: list[Tensor] = []
    for epoch in range(config.epochs):
        if epoch == warm:
            books = _start(encoder, x, config)
            optimizer.add_param_group({"params": books, "weight_decay": 0.0})
            schedule.base_lrs.append(config.learning_rate)
            optimizer.param_groups[-1] |= {"lr": optimizer.param_groups[0]["lr"], "initial_lr": config.learning_rate}
        if books and (epoch - warm) % config.every == 0:
            _restart(encoder, x, books, generator)
            groups = [_groups(book, config) for book in books]
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for rows in order.split(config.batch):
            loss = _loss(x[rows], encoder, decoder, books, groups, config, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        schedule.step()
        progress((epoch + 1) / config.epochs, f"epoch {epoch + 1}/{config.epochs}, loss {total / len(x):.3f}")
    _restart(encoder, x, books, generator)
    made = _folded(encoder, decoder, books, mean, scale)
    return Fitted(made, made.encode(vectors))


def _loss(
    x: Tensor,
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    books: Sequence[Tensor],
    groups: Sequence[Tensor],
    config: RqVaeConfig,
    generator: torch.Generator,
) -> Tensor:
    latent = _forward(encoder, x, config.dropout, generator)
    residual, summed, extra = latent, torch.zeros_like(latent), latent.new_zeros(())
    for book, group in zip(books, groups, strict=True):
        code = torch.cdist(residual.detach(), book.detach()).argmin(dim=1)
        chosen = book[code]
        extra = extra + (residual.detach() - chosen).square().mean()
        extra = extra + config.commitment * (residual - chosen.detach()).square().mean()
        if config.diversity:
            extra = extra + config.diversity * diversity(book, code, group, generator)
        residual, summed = residual - chosen.detach(), summed + chosen.detach()
    through = latent + (summed - latent).detach() if books else latent
    return (_forward(decoder, through, config.dropout, generator) - x).square().mean() + extra


def diversity(
    book: Float[Tensor, "codes dim"],
    code: Int[Tensor, " items"],
    groups: Int[Tensor, " codes"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """-mean_i log( exp⟨e_i, e_+⟩ / Σ_{j ≠ i} exp⟨e_i, e_j⟩ ), e_+ another code of e_i's group, drawn at random.

    It pulls codes of a group together and pushes groups apart, so that no code takes all items of its neighbourhood.
    Items whose code is alone in its group have no e_+ and do not count.
    Source: LETTER (Wang et al. 2024), eq. 4.
    """
    mates = (groups[:, None] == groups) & ~torch.eye(len(book), dtype=torch.bool)
    weights = mates[code].double()
    company = weights.sum(dim=1) > 0
    if not bool(company.any()):
        return book.new_zeros(())
    code, weights = code[company], weights[company]
    positive = torch.multinomial(weights, 1, generator=generator)
    scores = (book[code] @ book.T).scatter(1, code[:, None], float("-inf"))
    return -scores.log_softmax(dim=1).gather(1, positive).mean()


def _standardised(vectors: Tensor) -> tuple[Tensor, Tensor, float]:
    """Rows about their mean with a mean square of 1 a coordinate, in float32; the mean and the scale."""
    mean = vectors.double().mean(dim=0)
    centred = vectors.double() - mean
    scale = float(centred.square().mean().sqrt()) or 1.0
    return (centred / scale).float(), mean, scale


def _mlps(dim: int, config: RqVaeConfig, generator: torch.Generator) -> tuple[nn.Sequential, nn.Sequential]:
    def mlp(sizes: Sequence[int]) -> nn.Sequential:
        layers = []
        for before, after in pairwise(sizes):
            layer = nn.utils.skip_init(nn.Linear, before, after)
            with torch.no_grad():
                nn.init.xavier_normal_(layer.weight, generator=generator)
                layer.bias.zero_()
            layers.append(layer)
        return nn.Sequential(*layers)

    sizes = [dim, *config.hidden, config.dim]
    return mlp(sizes), mlp(sizes[::-1])


def _forward(mlp: nn.Sequential, x: Tensor, dropout: float, generator: torch.Generator | None) -> Tensor:
    """Linear, then dropout and ReLU between layers; without `generator` nothing is dropped."""
    for number, layer in enumerate(mlp):
        if number:
            x = x.relu()
        if generator is not None and dropout:
            kept = torch.rand(x.shape, generator=generator) >= dropout
            x = x * kept / (1 - dropout)
        x = layer(x)
    return x


@torch.no_grad()
def _residuals(encoder: nn.Sequential, x: Tensor, books: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What reaches each level (and what is left after the last), and the codes chosen there."""
    residuals, codes = [_forward(encoder, x, 0.0, None)], []
    for book in books:
        codes.append(torch.cdist(residuals[-1], book).argmin(dim=1))
        residuals.append(residuals[-1] - book[codes[-1]])
    return residuals, codes


def _start(encoder: nn.Sequential, x: Tensor, config: RqVaeConfig) -> list[nn.Parameter]:
    """Codebooks from k-means of what each level is given."""
    books: list[nn.Parameter] = []
    for level, size in enumerate(config.sizes):
        residual = _residuals(encoder, x, books)[0][-1]
        book, _ = kmeans(residual.double(), size, seed=config.seed + level, starts=1)
        books.append(nn.Parameter(book.float()))
    return books


@torch.no_grad()
def _restart(encoder: nn.Sequential, x: Tensor, books: Sequence[Tensor], generator: torch.Generator) -> None:
    """Put every code that no row uses onto one of the rows that its level serves worst."""
    for level, book in enumerate(books):
        residuals, codes = _residuals(encoder, x, books[: level + 1])
        dead = (torch.bincount(codes[level], minlength=len(book)) == 0).nonzero().flatten()
        if len(dead):
            left = residuals[level + 1].square().sum(dim=1)
            worst = left.topk(min(4 * len(dead), len(x))).indices
            book[dead] = residuals[level][worst[torch.randperm(len(worst), generator=generator)[: len(dead)]]]


def _groups(book: Tensor, config: RqVaeConfig) -> Tensor:
    """The group of each code, for `diversity`."""
    count = min(config.groups, len(torch.unique(book.detach(), dim=0)) // 2)
    if count < 2:
        return torch.zeros(len(book), dtype=torch.long)
    means, _ = kmeans(book.detach().double(), count, seed=config.seed, starts=1)
    return torch.cdist(book.detach().double(), means).argmin(dim=1)


def _folded(
    encoder: nn.Sequential, decoder: nn.Sequential, books: Sequence[Tensor], mean: Tensor, scale: float
) -> Quantiser:
    """The trained parts as a quantiser of raw vectors: standardisation becomes part of the first and last layer."""
    ways = []
    for mlp in (encoder, decoder):
        layers = [layer for layer in mlp if isinstance(layer, nn.Linear)]
        ways.append(
            ([layer.weight.detach().double() for layer in layers], [layer.bias.detach().double() for layer in layers])
        )
    (weights, biases), (back, back_biases) = ways
    weights[0] = weights[0] / scale
    biases[0] = biases[0] - weights[0] @ mean
    back[-1], back_biases[-1] = back[-1] * scale, back_biases[-1] * scale + mean
    inward, outward = Layers(tuple(weights), tuple(biases)), Layers(tuple(back), tuple(back_biases))
    return Quantiser("rq-vae", tuple(book.detach().double() for book in books), (), inward, outward)
