"""gti-train extend and ground: new tokens and what they mean."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from gti_diag.cli.bundles import unfolded
from gti_diag.cli.shell import say
from gti_diag.errors import InputError

from .app import app
from .options import (
    Catalogue,
    Dtype,
    Every,
    Kinds,
    Out,
    Seed,
    Sids,
    Training,
    Words,
    listed_tokens,
    prompt_kinds,
)
from .progress import steps_bar


@app.command(epilog="Example: gti-train extend HuggingFaceTB/SmolLM2-135M --sids shop/sids --init mean --out ckpt/mean")
def extend(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Causal LM: hub id, folder or .gguf file.")],
    out: Out,
    sids: Annotated[Path | None, typer.Option(help="Folder from `gti-train sids`: tokens and codebooks.")] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="LIST|@FILE", help="The new tokens: a,b,c or a file with one a line.")
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where the new rows start: mean | random | gaussian | description | codebook | transformers-default.",
        ),
    ] = "mean",
    items: Annotated[
        Path | None, typer.Option(help="Catalogue that says what codes stand for, for description and codebook.")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(min=0, help="Standard deviation of a random start.", show_default="that of the old rows"),
    ] = None,
    norm: Annotated[
        str, typer.Option(metavar="own|text", help="Rescale new rows to the median norm of the old ones: text.")
    ] = "own",
    share: Annotated[
        float, typer.Option(min=0, help="Part of the old rows' covariance that a gaussian start has.")
    ] = 1.0,
    spread: Annotated[
        float | None,
        typer.Option(
            min=0, help="Move the new rows about their mean to this share of the old rows' spread: 1 for descriptions."
        ),
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = None,
) -> None:
    """Add new tokens to a model and its tokenizer: an ordinary checkpoint, and gti.json that says what is new."""
    from gti_train.model.vocabulary import extend_checkpoint

    if (sids is None) == (tokens is None):
        raise InputError("say which tokens to add: either --sids DIR or --tokens LIST")
    if sids is None and (items is not None or init in ("description", "codebook")):
        raise InputError(f"--items and --init {init} are for --sids: a catalogue does not describe --tokens")
    codes: dict = {"tokens": listed_tokens(tokens)} if tokens is not None else {}
    if sids is not None:
        from gti_train.catalogue.reading import read_catalogue
        from gti_train.semantic_ids.files import load_sids
        from gti_train.semantic_ids.ids import described

        made = load_sids(sids)
        codes = {"tokens": made.tokens, "levels": made.levels, "counts": made.counts.tolist(), **made.references}
        if items is not None:
            codes["descriptions"] = described(made, read_catalogue(items))
    if sigma is not None and init != "random":
        raise InputError(f"--sigma is for --init random, not for {init}")
    if share != 1.0 and init != "gaussian":
        raise InputError(f"--share is for --init gaussian, not for {init}")
    extend_checkpoint(
        base, out, **codes, init=init, seed=seed, dtype=dtype, sigma=sigma, share=share, norm=norm, spread=spread
    )
    say(f"{len(codes['tokens'])} new tokens, {init} start: {out}")


@dataclass(frozen=True)
class Prompts:
    """What the new tokens are taught from."""

    kinds: Kinds = "all"
    words: Words = 40
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the items kept aside; their loss is measured as well.")
    ] = 0.0


@dataclass(frozen=True)
class Watched:
    """What is measured on the way, and when that is reason to stop."""

    every: Every = 25
    watch: Annotated[
        str, typer.Option(metavar="rsa|held_out_loss", help="What --patience goes by; held_out_loss needs --hold-out.")
    ] = "rsa"
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many measurements without a better one; keep the best rows."),
    ] = None


@app.command(
    epilog="Example: gti-train ground ckpt/mean --items shop/items.jsonl --sids shop/sids --out ckpt/gti --steps 300"
)
@unfolded
def ground(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint that `extend` wrote.")],
    items: Catalogue,
    sids: Sids,
    out: Out,
    training: Training,
    prompts: Prompts,
    watched: Watched,
    then_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the second phase, in which every parameter trains. 0: none.")
    ] = 0,
    then_lr: Annotated[float, typer.Option(help="Learning rate of the second phase.")] = 2e-5,
    cache: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory for what precedes the first new token, kept between epochs.")
    ] = "1GiB",
) -> None:
    """Teach the new rows what they stand for, from texts, while the rest of the model stays as it is.

    With --save-every, the same command again goes on where a killed run was. Several processes share every batch:
    torchrun --nproc-per-node 4 -m gti_train.cli ground CKPT …, or accelerate launch -m gti_train.cli ground CKPT …
    """
    from gti_diag.files import parse_bytes
    from gti_train.catalogue.reading import read_catalogue
    from gti_train.grounding.config import GroundingConfig
    from gti_train.grounding.prompts import examples_from
    from gti_train.grounding.stage import ground_checkpoint
    from gti_train.loop.training import LoopConfig
    from gti_train.semantic_ids.files import load_sids

    examples, held, counted = examples_from(
        read_catalogue(items), load_sids(sids), kinds=prompt_kinds(prompts.kinds), seed=training.seed,
        words=prompts.words, held_out=prompts.hold_out,
    )  # fmt: skip
    config = GroundingConfig(
        steps=training.steps, learning_rate=training.learning_rate, cache_bytes=parse_bytes(cache, "--cache"),
        **training.loop(), **asdict(watched),
    )  # fmt: skip
    new = _new_tokens(checkpoint, sids)
    then = LoopConfig(steps=then_steps, learning_rate=then_lr, **training.loop()) if then_steps else None
    with steps_bar(training.quiet, training.steps + then_steps) as progress:
        ground_checkpoint(
            checkpoint, out, examples=examples, config=config, held_out=held, then=then, dtype=training.dtype,
            save_every=training.save_every, keep=training.keep, track=training.trackers(), progress=progress,
        )  # fmt: skip
    say(f"{new} tokens grounded in {counted} items: {out}")


def _new_tokens(checkpoint: Path, sids: Path) -> int:
    """How many new tokens the checkpoint has.

    Raises:
        InputError: a token of the semantic IDs is none of them.
    """
    from gti_train.model.sidecar import read_sidecar
    from gti_train.semantic_ids.files import load_sids

    new = read_sidecar(checkpoint).new_tokens
    if missing := sorted(set(load_sids(sids).tokens) - set(new)):
        raise InputError(
            f"{missing[0]!r} of {sids} is no new token of {checkpoint} ({len(missing)} are not): "
            "extend a model with these semantic IDs, or name the ones that it was extended with"
        )
    return len(new)
