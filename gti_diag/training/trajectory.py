"""A run's checkpoints over training steps: which there are, what each measures, and what was measured before."""

import contextlib
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gti_diag.errors import InputError
from gti_diag.files import atomic, write_text
from gti_diag.foreign import presentable, shown, without_secrets
from gti_diag.foreign.json_text import parse_json, writable
from gti_diag.foreign.limits import read_small

LINES = "trajectory.jsonl"
CACHE = "cache"
RUN = "checkpoint-[0-9]*"  # how trainers name a run's checkpoints
# What a line leaves out: what is drawn of one checkpoint, not of a run.
BULKY = {"panel", "blocks", "map", "neighbours", "singular_values", "singular_values_centred", "histogram"}


def follow(
    patterns: Sequence[str],
    out: str | Path,
    *,
    jobs: int = 1,
    interval: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    **options: Any,
) -> Iterator[list[dict]]:
    """Measure the checkpoints that `patterns` name and keep `out`/trajectory.jsonl up to date.

    Yields the lines of the checkpoints that are new since the last look, in order; one look if `interval` is None, else
    one every `interval` seconds for ever. `options` are those of `diagnose`.

    Raises:
        InputError: no checkpoint, or one that `diagnose` refuses; while watching, only if it is refused unchanged twice,
            as a checkpoint may be half written at the first look.
    """
    folder = Path(out)
    known: dict[str, dict] = {}
    refused: dict[str, str | None] = {}
    while True:
        paths = expand(patterns)
        if not paths and interval is None:
            raise InputError(f"no checkpoint matches {' '.join(patterns)}")
        fresh: dict[str, dict] = {}
        for path, found in _measured([path for path in paths if path not in known], folder, jobs, options):
            if isinstance(found, dict):
                fresh[path] = found
                refused.pop(path, None)
            elif interval is None or refused.get(path) == stamp(path):
                raise found
            else:
                refused[path] = stamp(path)
        known |= fresh
        if fresh:
            lines = in_order([known[path] for path in paths if path in known])
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_text(folder / LINES, without_secrets(writable(text)))
            yield [line for line in lines if line["checkpoint"]["path"] in fresh]
        if interval is None:
            return
        sleep(interval)


# --- which checkpoints ----------------------------------------------------------------------------------------------


def expand(patterns: Sequence[str]) -> list[str]:
    """The checkpoints that patterns name, each once: a glob's matches, a run folder's `checkpoint-N`, or the name itself."""
    found: dict[str, None] = {}
    for pattern in patterns:
        if glob.has_magic(pattern) and not os.path.exists(pattern) and "://" not in pattern:
            names = sorted(glob.glob(pattern, recursive=True), key=natural)
        else:
            inside = sorted(glob.glob(os.path.join(glob.escape(pattern), RUN)), key=natural)
            names = inside or [pattern]
        found |= dict.fromkeys(names)
    return list(found)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which checkpoint-9 comes before checkpoint-10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def in_order(lines: Sequence[dict]) -> list[dict]:
    """By step where every line has one, else as they are."""
    steps = [line["checkpoint"].get("step") for line in lines]
    return list(lines) if None in steps else sorted(lines, key=lambda line: line["checkpoint"]["step"])


def step_of(path: str, recorded: int | None) -> int | None:
    """From trainer_state.json, the number at the end of the name, or gti.json, in that order.

    gti.json comes last: fine-tuning may copy the one of its start.
    """
    state = Path(path) / "trainer_state.json"
    if state.is_file():
        from gti_diag.foreign import schemas

        step = schemas.read_formed(schemas.TrainerState, state, "it is no trainer's state", finite=False).global_step
        if step is not None:
            return step
    named = re.search(r"(\d+)$", path.rstrip("/"))
    return int(named[1]) if named else recorded


# --- what each measures ---------------------------------------------------------------------------------------------


def stamp(path: str) -> str | None:
    """Names, sizes and times of a local checkpoint's files: unchanged files need not be read again. None if far."""
    place = Path(path)
    if not place.exists():
        return None
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    described = [(file.name, s.st_size, s.st_mtime_ns) for file in files for s in [file.stat()]]
    return _key([os.path.realpath(path), described])


def _measured(
    paths: Sequence[str], folder: Path, jobs: int, options: Mapping[str, Any]
) -> Iterator[tuple[str, dict | InputError]]:
    if not paths:
        return
    base = options.get("base")
    settings = _key([{**options, "base": None}, base if base is None else stamp(str(base)) or str(base)])
    cache = folder / CACHE
    with _pool(min(jobs, len(paths))) as pool:
        waiting = [(path, _submit(pool, path, cache, settings, options)) for path in paths]
        for path, wait in waiting:
            try:
                yield path, wait()
            except InputError as error:
                yield path, error


def _pool(jobs: int):
    if jobs == 1:
        return nullcontext(None)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # spawn: a forked child of a process that has run torch may hang
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_share_cores, initargs=(threads,))


def _share_cores(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _submit(pool: Executor | None, path: str, cache: Path, settings: str, options: Mapping[str, Any]):
    if pool is None:
        return lambda: line_of(path, cache, settings=settings, options=options)
    return pool.submit(line_of, path, cache, settings=settings, options=options).result


def line_of(path: str, cache: Path, *, settings: str, options: Mapping[str, Any]) -> dict:
    """The line of one checkpoint: from the cache by its stamp, else by its fingerprint, else measured now.

    Raises:
        InputError: as `diagnose`.
    """
    mark = stamp(path)
    files = [] if mark is None else [cache / f"{_key([mark, settings])}.json"]
    line = _cached(files)
    if line is None:
        from gti_diag.analysis.diagnosis import diagnose
        from gti_diag.checkpoint import open_base, open_checkpoint

        tensor, base = options.get("tensor"), options.get("base")
        base = open_base(base, tensor=tensor) if isinstance(base, (str, Path)) else base
        opened = open_checkpoint(path, tensor=tensor, base=base)
        files.append(cache / f"{_key([opened.fingerprint, settings])}.json")
        line = _cached(files[-1:]) or slim(diagnose(opened, exhibits=False, **{**options, "base": base}))
        for file in files:
            write_text(file, writable(json.dumps(line, ensure_ascii=False)))
    line["checkpoint"] |= {"path": path, "name": Path(path.rstrip("/")).name}
    line["checkpoint"]["step"] = step_of(path, line["checkpoint"].get("step"))
    return line


def _cached(files: Sequence[Path]) -> dict | None:
    """The first of the files that is there and whole: what is damaged is measured again."""
    from gti_diag.foreign import schemas

    for file in files:
        with contextlib.suppress(InputError, OSError):
            found = parse_json(read_small(file), file, finite=True)
            return schemas.checked(schemas.Analysis, found, file)
    return None


def slim(analysis: Mapping[str, Any]) -> dict:
    """An analysis without its long lists: what a line holds."""
    if not isinstance(analysis, Mapping):
        return analysis
    return {key: slim(value) for key, value in analysis.items() if key not in BULKY}


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:24]


# --- showing it -----------------------------------------------------------------------------------------------------


def summary(line: Mapping[str, Any]) -> str:
    """One checkpoint in one line of text."""
    matrix = line["matrices"][next(iter(line["matrices"]))]
    new, rsa = matrix["groups"].get("new") or {}, (matrix.get("rsa") or {}).get("pearson") or {}
    numbers = {
        "effective rank": new.get("effective_rank_centred"),
        "dispersion ratio": new.get("dispersion_ratio"),
        "RSA": rsa.get("value"),
    }
    step = line["checkpoint"].get("step")
    parts = [f"{name} {value:.3g}" for name, value in numbers.items() if value is not None]
    return shown("  ".join(["step –" if step is None else f"step {step}", line["checkpoint"]["name"],
                            matrix["verdict"]["label"] or "nothing to judge", *parts]))  # fmt: skip


def draw(out: str | Path, *, style: str = "paper", formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """The figure of `out`/trajectory.jsonl, one per matrix; nothing with fewer than two steps."""
    from gti_diag.render import trajectory as figure
    from gti_diag.render import view
    from gti_diag.render.style import METADATA, using

    lines = [
        presentable(json.loads(line)) for line in (Path(out) / LINES).read_text(encoding="utf-8").split("\n") if line
    ]
    if len({line["checkpoint"].get("step") for line in lines}) < len(lines):  # no steps known: number them
        lines = [
            {**line, "checkpoint": {**line["checkpoint"], "step": place}} for place, line in enumerate(lines, start=1)
        ]
    written = []
    for matrix in view.matrices(lines):
        panels = []
        for seen in view.views(lines, matrix):
            try:
                panels.append(figure.points(seen))
            except view.Missing:  # no new tokens at that step
                continue
        if not figure.together(panels):
            continue
        with using(style) as look:
            drawn = figure.draw(panels, look)
            for suffix in formats:
                path = Path(out) / f"{figure.NAME}{'' if matrix == 'input' else '-' + matrix}.{suffix}"
                with atomic(path) as temporary:
                    drawn.savefig(temporary, format=suffix, metadata=METADATA[suffix])
                written.append(path)
    return written
