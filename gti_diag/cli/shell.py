"""What both command lines share: how a command ends, and one clear line for an error that a user can mend."""

import os
import sys

from gti_diag.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_USAGE, InputError


def run(app, program: str) -> None:
    """Run a typer application and leave with 0, 1 (`check` only), 2 (bad usage or input) or 130 (interrupted)."""
    # Threads that spin while they wait for each other multiply the time of every step on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported, inside a command
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages: fewer faults for large tiles
    code: object = EXIT_PASS
    try:
        try:
            app(prog_name=program)
        except SystemExit as left:
            code = left.code
        sys.stdout.flush()  # a full disk may show here first
    except InputError as error:
        code = _say(program, " ".join(str(error).split()))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        _drop_output()
    except OSError as error:
        code = _say(program, f"{error.filename or 'standard output'}: {error.strerror or error}")
        _drop_output()
    if code == EXIT_INTERRUPTED:  # typer turns the interrupt into this code and says nothing
        sys.stderr.write(f"{program}: interrupted\n")
    sys.exit(code)  # type: ignore[arg-type]


def _say(program: str, line: str) -> int:
    sys.stderr.write(f"{program}: {line}\n")
    return EXIT_USAGE


def _drop_output() -> None:
    """What is still in the buffer cannot be written: let it go, or Python fails over it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
