"""The one exception that a user is meant to read, and what a command's exit code says."""

EXIT_PASS, EXIT_REGRESSION, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class InputError(ValueError):
    """The input cannot be used: one plain line that names the file, the value and the fix (exit code 2)."""


def bad(path: object, problem: str, fix: str = "") -> InputError:
    """One plain line: where, what, and what to do."""
    line = f"{path}: {problem}" + (f"; {fix}" if fix else "")
    return InputError(" ".join(line.split()))
