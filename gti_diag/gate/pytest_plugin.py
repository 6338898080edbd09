"""pytest: `assert_healthy_embeddings`, as a fixture and as a function.

pytest imports this module in every project where gti-diag is installed, so it imports nothing else until it is used.
"""

from typing import Any

import pytest


def assert_healthy_embeddings(checkpoint: Any, *, base: Any = None, policy: Any = "default", baseline: Any = None, **options: Any) -> Any:  # fmt: skip
    """Fail the test unless the checkpoint satisfies the policy and is no worse than the baseline; returns the findings.

    Args:
        checkpoint: a path, an opened checkpoint or an analysis, as `gti_diag.check` takes it.
        base: the model before tokens were added.
        policy: default, strict or a TOML file.
        baseline: what `gti-diag baseline` wrote.
        options: those of `gti_diag.diagnose`.
    """
    __tracebackhide__ = True
    import gti_diag

    findings = gti_diag.check(checkpoint, baseline=baseline, policy=policy, base=base, **options)
    if not findings.passed:
        pytest.fail(str(findings), pytrace=False)
    return findings


@pytest.fixture(name="assert_healthy_embeddings")
def _assert_healthy_embeddings() -> Any:
    """The function, where importing it would be a detour."""
    return assert_healthy_embeddings
