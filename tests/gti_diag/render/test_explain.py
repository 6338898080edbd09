"""Every number that a report shows can be explained."""

import numpy as np
import pytest

import gti_diag
from gti_diag.analysis.verdict import LABELS
from gti_diag.errors import InputError
from gti_diag.render.explain import explanations, lookup

BOOKKEEPING = {"sampled", "neighbourhood_rows", "alpha_req_fit", "undefined"}


def test_every_measure_and_verdict_of_an_analysis_has_a_page(tiny_lm, tmp_path):
    tokens = [f"<a_{code}>" for code in range(12)]
    np.save(tmp_path / "r.npy", np.random.default_rng(0).normal(size=(12, 3)))
    found = gti_diag.diagnose(tiny_lm("n", new_tokens=tokens), reference=tmp_path / "r.npy")["matrices"]["input"]
    shown = {
        *found["groups"]["new"],
        *LABELS,
        "rsa",
        "hierarchy",
        "neighbours",
        "drift",
        "rho_a",
        "null",
        "isotropic",
        "crowded_rows",
        *("silhouette", "siblings", "strangers", "cophenetic"),
        "p_value",
    } - BOOKKEEPING
    shown |= {name for level in found["hierarchy"]["levels"].values() for name in level}
    shown |= {"cka", "cka_debiased", "procrustes", "neighbourhood_overlap"}
    shown |= {reason["measure"] for reason in found["verdict"]["reasons"]}
    assert all(lookup(name).one_line for name in shown)


@pytest.mark.parametrize("name", explanations())
def test_pages_are_complete(name):
    page = lookup(name)
    parts = (
        page.title,
        page.one_line,
        page.definition,
        page.convention,
        page.range,
        page.reading,
        page.pitfalls,
        page.source,
    )
    assert all(part.strip() for part in parts) and len(page.one_line) < 130


def test_titles_and_spellings_are_understood():
    assert lookup("Effective Rank").name == "effective_rank"
    assert lookup("participation_ratio_centred").name == "participation_ratio"


def test_unknown_names_get_suggestions():
    with pytest.raises(InputError, match="did you mean effective_rank"):
        lookup("efective_rank")
