"""`python -m gti_diag` is `gti-diag`."""

from gti_diag.cli import main

main()
