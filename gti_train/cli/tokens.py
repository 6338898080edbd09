"""gti-train extend and ground: new tokens and what they mean."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag.errors import InputError

from .app import app
from .options import Batch, Dtype, Kinds, Out, Quiet, Rate, Seed, Steps, Words, listed_tokens, prompt_kinds
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
        float | None, typer.Option(min=0, help="Standard deviation of a random start [default: that of the old rows].")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, help="Part of the old rows' covariance that a gaussian start has.")
    ] = 1.0,
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
        from gti_train.catalogue.json_lines import read_catalogue
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
    extend_checkpoint(base, out, **codes, init=init, seed=seed, dtype=dtype, sigma=sigma, share=share)
    typer.echo(f"{len(codes['tokens'])} new tokens, {init} start: {out}")


@app.command(
    epilog="Example: gti-train ground ckpt/mean --items shop/items.jsonl --sids shop/sids --out ckpt/gti --steps 300"
)
def ground(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint that `extend` wrote.")],
    items: Annotated[Path, typer.Option(help="JSON lines with item_id, title and description.")],
    sids: Annotated[Path, typer.Option(help="Folder from `gti-train sids`.")],
    out: Out,
    steps: Steps = 150,
    batch: Batch = 16,
    learning_rate: Rate = 1e-3,
    kinds: Kinds = "all",
    words: Words = 40,
    every: Annotated[int, typer.Option(min=0, help="Steps between measurements of the geometry; 0: none.")] = 25,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of the items kept aside; their loss is measured as well.")
    ] = 0.0,
    watch: Annotated[
        str, typer.Option(metavar="rsa|held_out_loss", help="What --patience goes by; held_out_loss needs --hold-out.")
    ] = "rsa",
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many measurements without a better one; keep the best rows."),
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")] = 10,
    schedule: Annotated[
        str, typer.Option(metavar="constant|linear|cosine", help="Learning rate after the warm-up.")
    ] = "constant",
    then_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the second phase, in which every parameter trains. 0: none.")
    ] = 0,
    then_lr: Annotated[float, typer.Option(help="Learning rate of the second phase.")] = 2e-5,
    cache: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory for what precedes the first new token, kept between epochs.")
    ] = "1GiB",
    save_every: Annotated[
        int, typer.Option(min=0, help="Steps between states; a killed run resumes from the last one. 0: none.")
    ] = 0,
    keep: Annotated[int, typer.Option(min=1, help="States kept; older ones are removed.")] = 2,
    track: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Trackers that accelerate knows, such as tensorboard,wandb; files: OUT.logs."
        ),
    ] = "",
    seed: Seed = 0,
    dtype: Dtype = None,
    quiet: Quiet = False,
) -> None:
    """Teach the new rows what they stand for, from texts, while the rest of the model stays as it is.

    With --save-every, the same command again goes on where a killed run was. Several processes share every batch:
    torchrun --nproc-per-node 4 -m gti_train.cli ground CKPT …, or accelerate launch -m gti_train.cli ground CKPT …
    """
    from gti_diag.files import parse_bytes
    from gti_train.catalogue.json_lines import read_catalogue
    from gti_train.grounding.ground import GroundingConfig
    from gti_train.grounding.prompts import grounding_examples
    from gti_train.grounding.prompts import hold_out as hold_out_items
    from gti_train.grounding.stage import ground_checkpoint
    from gti_train.loop.training import LoopConfig
    from gti_train.model.sidecar import read_sidecar
    from gti_train.semantic_ids.files import load_sids

    catalogue, made = read_catalogue(items), load_sids(sids)
    asked: dict[str, Any] = {"kinds": prompt_kinds(kinds), "seed": seed, "words": words}
    held: list = []
    if hold_out:
        catalogue, apart = hold_out_items(catalogue, made, share=hold_out, seed=seed)
        held = grounding_examples(apart, made, **asked)
    examples = grounding_examples(catalogue, made, **asked)
    loop: dict[str, Any] = {"batch": batch, "warmup": warmup, "schedule": schedule, "seed": seed}
    watched: dict[str, Any] = {"every": every, "patience": patience, "watch": watch}
    config = GroundingConfig(
        steps=steps, learning_rate=learning_rate, cache_bytes=parse_bytes(cache, "--cache"), **loop, **watched
    )
    new = read_sidecar(checkpoint).new_tokens
    if missing := sorted(set(made.tokens) - set(new)):
        raise InputError(
            f"{missing[0]!r} of {sids} is no new token of {checkpoint} ({len(missing)} are not): "
            "extend a model with these semantic IDs, or name the ones that it was extended with"
        )
    then = LoopConfig(steps=then_steps, learning_rate=then_lr, **loop) if then_steps else None
    with steps_bar(quiet, steps + then_steps) as progress:
        options: dict[str, Any] = {"dtype": dtype, "save_every": save_every, "keep": keep, "progress": progress}
        trackers = [name.strip() for name in track.split(",") if name.strip()]
        ground_checkpoint(
            checkpoint, out, examples=examples, config=config, held_out=held, then=then, track=trackers, **options
        )
    typer.echo(f"{len(new)} tokens grounded in {len(catalogue.items)} items: {out}")
