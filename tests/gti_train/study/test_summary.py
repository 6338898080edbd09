"""Tables and figures come from results alone; who is compared with whom, and what a correlation is, are checked by hand."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import spearmanr

from gti_diag.errors import InputError
from gti_train.study import tables
from gti_train.study.config import read_study
from gti_train.study.relation import relations, spearman
from gti_train.study.results import Results, read_results, table
from gti_train.study.running import estimate, run_study, small, weights_of
from gti_train.study.summary import plain, summarise


def judged(values: dict[str, float], start: str = "mean") -> dict:
    mean = sum(values.values()) / len(values)
    per_user = {"user_ids": list(values), "recall@10": list(values.values()), "ndcg@10": list(values.values())}
    return {"start": start, "per_user": per_user, "metrics": {"recall@10": {"value": mean}}}


def results(*, source: str | None, arms: dict[str, dict[int, dict[str, float]]]) -> Results:
    study = {"data": {"source": source}, "arms": dict.fromkeys(arms), "baseline": "mean", "evaluation": {"ks": [10]}}
    found = {arm: {seed: judged(values, arm) for seed, values in seeds.items()} for arm, seeds in arms.items()}
    return Results(study, found, {}, {}, {}, {})


TWO_SEEDS = {"mean": {0: {"a": 0.0, "b": 0.0}, 1: {"a": 0.0, "b": 1.0}}, "gti": {0: {"a": 1.0, "b": 0.0}, 1: {"a": 1.0, "b": 1.0}}}  # fmt: skip


@pytest.mark.parametrize("source, users", [("shop", 2), (None, 4)])
def test_users_are_one_person_under_every_seed_only_where_the_source_is_one(source, users):
    mean, gti = table(results(source=source, arms=TWO_SEEDS))
    assert (mean.users, mean.seeds, mean.values["recall@10"], mean.against) == (users, 2, 0.25, None)
    assert gti.values["recall@10"] == 0.75
    assert gti.against["recall@10"].value == pytest.approx(0.5)
    low, high = gti.against["recall@10"].interval
    assert 0 <= low <= 0.5 <= high <= 1


def test_arms_are_compared_on_the_seeds_that_both_have():
    arms = {"mean": {0: {"a": 0.0, "b": 1.0}}, "gti": {0: {"a": 1.0, "b": 1.0}, 1: {"a": 0.0, "b": 0.0}}}
    _, gti = table(results(source=None, arms=arms))
    assert gti.values["recall@10"] == 0.5
    assert gti.against["recall@10"].value == pytest.approx(0.5), "seed 1 of the other arm is not there yet"


def test_tables_show_intervals_signs_and_a_rule_before_the_baselines():
    found = results(source=None, arms=TWO_SEEDS)
    found.simple["item_knn"] = found.users("mean")
    rows = table(found)
    lines = tables.outcome(found, rows).splitlines()
    assert lines[0].startswith("|  | seeds | users | Recall@10 | NDCG@10 | Recall@10 − mean's")
    assert "+0.500 [" in lines[3] and "+0.000 [+0.000, +0.000]" in lines[4]
    latex = tables.outcome_latex(found, rows).splitlines()
    assert latex[6] == r"\midrule" and latex[7].startswith(r"item\_knn & $0.2500 \pm")


def test_rank_correlation_is_spearmans_with_a_permutation_p():
    x, y = np.array([1.0, 2, 2, 5, 7, 4]), np.array([3.0, 1, 4, 6, 9, 8])
    rho, p = spearman(x, y, seed=0)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    assert p == pytest.approx(0.05, abs=0.03)
    with pytest.raises(ValueError, match="all values of one side are equal"):
        spearman(x, np.ones(6), seed=0)


def test_relations_need_runs_that_differ():
    arms = {name: {0: {"a": value, "b": 0.0}} for name, value in zip("pqrs", (0.0, 0.2, 0.4, 1.0), strict=True)}
    found = results(source=None, arms=arms)
    for place, arm in enumerate(arms):
        matrix = {"groups": {"new": {"effective_rank": 2.0, "dispersion_ratio": float(-place)}}, "rsa": None}
        found.tuned[arm] = {0: {"matrices": {"input": matrix}}}
    (only,) = relations(found, "recall@10")
    assert (only.measure, only.when, only.rho, only.runs) == ("spread / vocabulary's", "tuned", -1.0, 4)


def test_everything_is_drawn_from_the_results_alone(done, tmp_path):
    out, _ = done
    shutil.copytree(out / "results", tmp_path / "results")
    written = [
        path.relative_to(tmp_path / "drawn")
        for path in summarise(tmp_path / "results", tmp_path / "drawn", formats=("svg",))
    ]
    names = {str(path) for path in written}
    assert {"tables.md", "outcome.tex", "figures/outcome.svg"} <= names
    for folder in ("starts", "tuned"):  # Figures 2, 5 and 6 to 8
        assert {
            f"figures/{folder}/{name}.svg"
            for name in ("token-map", "spectrum", "cosine-panels", "cosine-blocks", "rsa")
        } <= names
    assert (tmp_path / "drawn" / "tables.md").read_bytes() == (out / "tables.md").read_bytes()
    text = (out / "tables.md").read_text()
    assert all(f"| {name} |" in text for name in ("mean", "gti", "gti-tasks", "popularity", "transitions"))
    found = read_results(out / "results")
    shown = plain(found, table(found))
    assert len(shown["arms"]["gti"]["loss"]) == 1 and "repeat" not in shown["baselines"]
    summarise(tmp_path / "results", tmp_path / "other", baseline="gti", formats=())
    assert "Recall@10 − gti's" in (tmp_path / "other" / "tables.md").read_text()
    with pytest.raises(InputError, match="no arm 'popularity' was judged"):
        summarise(tmp_path / "results", tmp_path / "other", baseline="popularity")
    with pytest.raises(InputError, match="no results of a study"):
        summarise(tmp_path, tmp_path / "none")


def test_a_manifest_says_what_the_run_was_made_with_and_what_it_cost(done):
    out, stages = done
    found = json.loads((out / "results" / "manifest.json").read_text())
    assert list(found["stages"]) == [stage.output for stage in stages]
    assert found["study"]["name"] == "tiny" and found["versions"]["torch"] and found["machine"]["processors"]
    assert all(cost["processor_seconds"] is not None for cost in found["stages"].values())


def test_an_estimate_learns_from_what_is_finished(study_file, done, tmp_path):
    study = read_study(study_file)
    before, after = estimate(study, tmp_path), estimate(study, done[0])
    assert not before.measured and before.seconds > 0
    assert after.measured and after.seconds == 0
    more = estimate(study.model_copy(update={"seeds": [0, 1]}), done[0])
    spent = json.loads((done[0] / "results" / "manifest.json").read_text())["stages"]
    assert more.seconds == pytest.approx(
        sum(cost["processor_seconds"] for name, cost in spent.items() if name != "base"), rel=0.5
    )
    shutil.copytree(done[0], tmp_path / "begun")
    markers = tmp_path / "begun" / ".stages"  # the vectors were made, and a slow encoder took an hour for them
    for marker in markers.rglob("*.json"):
        content = json.loads(marker.read_text())
        if marker.stem == "sids":
            marker.write_text(json.dumps(content | {"processor_seconds": 3600.0}))
        elif marker.stem not in ("base", "catalogue"):
            marker.unlink()
    begun = estimate(study, tmp_path / "begun")
    assert begun.measured and begun.seconds == pytest.approx(before.seconds, rel=0.7), "it says nothing of the model"
    (tmp_path / "w.safetensors").write_bytes(bytes(2000))
    assert weights_of(str(tmp_path)) == 1000


def test_a_small_study_tries_every_stage_of_the_real_one(study_file, tmp_path):
    from gti_train.study.plan import plan

    study = read_study(study_file, changes={"seeds": [3, 4], "sids": {"encoder": "minilm"}})
    tried = small(study)
    real = {stage.output for stage in plan(study) if "seed-4" not in stage.output}
    assert {stage.output for stage in plan(tried)} == real
    assert max(arm.fine_tuning.steps for arm in tried.arms.values()) == 2
    run_study(tried, tmp_path)
    assert (tmp_path / "tables.md").is_file()
