"""What both command lines share: exit codes, and one clear line for an error that a user can mend."""

import os
import sys

from .errors import InputError

EXIT_PASS, EXIT_REGRESSION, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def run(app, program: str) -> None:
    """Run a typer application and leave with 0, 1 (`check` only), 2 (bad usage or input) or 130 (interrupted)."""
    # Threads that spin while they wait for each other multiply the time of every step on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported, inside a command
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages: fewer faults for large tiles
    try:
        app(prog_name=program)
    except InputError as error:
        sys.stderr.write(f"{program}: {' '.join(str(error).split())}\n")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
