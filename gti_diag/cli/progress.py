"""How far a measurement is, on a terminal."""

import contextlib
import sys
from collections.abc import Callable

from gti_diag.foreign import shown


def bar(quiet: bool) -> contextlib.AbstractContextManager[Callable[[str, float | None], None]]:
    """A context manager whose value is `progress(stage, share)`: a bar on a terminal, nothing when piped or quiet."""
    if quiet or not sys.stderr.isatty():
        return contextlib.nullcontext(lambda stage, share: None)
    return _bar()


@contextlib.contextmanager
def _bar():
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("opening", total=None)
        yield lambda stage, share: display.update(
            task, description=shown(stage), total=None if share is None else 1.0, completed=share or 0
        )
