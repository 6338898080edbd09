"""What both command lines share: how a command ends, and one clear line for an error that a user can mend."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

import typer

from gti_diag.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_USAGE, InputError
from gti_diag.foreign import shown

from .extras import missing

DEBUG = "GTI_DEBUG"  # shows the traceback behind an error's one line, as --debug does


def run(app, program: str) -> None:
    """Run a typer application and leave with 0, 1 (`check` and `scan` only), 2 (bad usage or input) or 130 (interrupted).

    A mistake of ours leaves with 2 as well: 1 would be read as a regression.
    """
    # Threads that spin while they wait for each other multiply the time of every step on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported, inside a command
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages: fewer faults for large tiles
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is no reason to fail
    debug = _debugging()
    code: object = EXIT_PASS
    try:
        with _terminated_as_interrupted():
            try:
                app(prog_name=program)
            except SystemExit as left:
                code = left.code
        sys.stdout.flush()  # a full disk may show here first
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        _drop_output()
    except Exception as error:
        code = EXIT_USAGE
        sys.stderr.write(f"{program}: {shown(_line(error))}\n")
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is None:
            _drop_output()
    if code == EXIT_INTERRUPTED:  # typer turns the interrupt into this code and says nothing
        sys.stderr.write(f"{program}: interrupted\n")
    sys.exit(code)  # type: ignore[arg-type]


def say(*lines: object, err: bool = False) -> None:
    """Print each on a line of its own, as it can be shown."""
    for line in lines:
        typer.echo(shown(line), err=err)


def _debugging() -> bool:
    """Whether tracebacks are wanted; --debug may stand anywhere among the options, so it is taken out here."""
    given = sys.argv[1:]
    options = given[: given.index("--")] if "--" in given else given
    if "--debug" in options:
        sys.argv = [sys.argv[0], *(option for option in options if option != "--debug"), *given[len(options) :]]
        return True
    return os.environ.get(DEBUG, "") not in ("", "0")


def _line(error: Exception) -> str:
    """An error in one line: what the user can mend, or that the mistake is ours and how to look at it."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if isinstance(error, ModuleNotFoundError) and (needed := missing(error)):
        return needed
    if isinstance(error, OSError):
        return f"{error.filename or 'standard output'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or ("alloc" in text and "memory" in text.lower()):
        return "out of memory: lower --max-memory, or give the machine more"
    return f"{type(error).__name__}: {text[:300] or 'no message'} (not foreseen; --debug shows where it came from)"


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM cleans up as ^C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_output() -> None:
    """What is still in the buffer cannot be written: let it go, or Python fails over it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
