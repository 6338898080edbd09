"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """The input cannot be used: one plain line that names the file, the value and the fix (exit code 2)."""
