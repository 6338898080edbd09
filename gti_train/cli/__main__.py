"""`python -m gti_train.cli` is `gti-train`, for launchers that start a module in every process."""

from gti_train.cli import main

main()
