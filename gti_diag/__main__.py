"""`python -m gti_diag` is `gti-diag`."""

from .cli import main

main()
