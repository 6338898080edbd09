"""Bars on the terminal."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def steps_bar(quiet: bool, steps: int, *, what: str = "grounding") -> Iterator[Callable]:
    """A bar on the terminal that shows the loss, and whatever geometry the records offer."""
    if quiet:
        yield lambda record: None
        return
    with bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task(what, total=steps, detail="")
        last: dict[str, float] = {}
        yield lambda record: display.update(task, completed=record.step, detail=_detail(record, last))


@contextlib.contextmanager
def share_bar(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on the terminal for work that tells its share and what it is at."""
    if quiet:
        yield lambda share, detail: None
        return
    with bar("{task.description}", "{task.fields[detail]}") as display:
        task = display.add_task("working", total=1.0, detail="")
        yield lambda share, detail: display.update(task, completed=share, detail=detail)


def _detail(record, last: dict[str, float]) -> str:
    """Loss, and the newest geometry: it is measured every so many steps only."""
    last.update(record.evaluation)
    names = {
        "rsa": "RSA",
        "rsa_codebooks": "with codebooks",
        "effective_rank_centred": "effective rank",
        "held_out_loss": "held-out loss",
    }
    names |= {"validation_loss": "validation loss", **{name: name for name in last if name.startswith("recall@")}}
    shown = {"loss": record.loss, **{label: last[name] for name, label in names.items() if name in last}}
    return ", ".join(f"{label} {value:.3g}" for label, value in shown.items())


def bar(*columns: str):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    left, *right = (TextColumn(column, markup=False) for column in columns)
    parts = (SpinnerColumn(), left, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), *right)
    return Progress(*parts, console=Console(stderr=True), transient=True)
