"""gti-train run says what it would do, and summarise needs results."""

import json
from pathlib import Path

from gti_diag.document import dumps
from gti_train.cli.study import show_outcome
from gti_train.study.demo import RECOMMEND, STUDY, demo_study


def test_dry_run_lists_stages_and_makes_nothing(command, tmp_path):
    code, out, _ = command("run", STUDY, "--out", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "seed-0/gti" in out
    assert "as SmolLM2-135M takes on one thread" in " ".join(out.split())
    assert not (tmp_path / "run").exists()


def test_a_study_that_is_not_there_and_results_that_are_none(command, tmp_path):
    code, _, err = command("run", tmp_path / "study.toml", "--out", tmp_path / "run")
    assert code == 2 and "study.toml" in err
    for option, value, told in (
        ("--arms", "gti,rnd", "no arm rnd: choose from mean, random, gti"),
        ("--seeds", "0,1", "no seed 1: choose from 0"),
        ("--seeds", "one", "write numbers with commas between them"),
        ("--arms", ",", "no arm is named: choose from"),
    ):
        code, _, err = command("run", STUDY, option, value, "--out", tmp_path / "run")
        assert code == 2 and told in err
    code, _, err = command("summarise", tmp_path, "--out", tmp_path / "drawn")
    assert code == 2 and "no results of a study" in err


def test_the_outcome_is_shown_with_its_intervals(tmp_path, capsys):
    study = demo_study({"evaluation": {"ks": [10]}}, recommend=True)
    per_user = {"user_ids": ["a", "b"], "recall@10": [1.0, 0.0], "ndcg@10": [0.5, 0.0]}
    arms = tmp_path / "seed-0" / "arms"
    for arm in ("mean", "gti"):
        (arms / arm).mkdir(parents=True)
        (arms / arm / "eval.json").write_text(dumps({"start": arm, "per_user": per_user}))
    (tmp_path / "manifest.json").write_text(json.dumps({"study": study.model_dump()}))
    show_outcome(tmp_path)
    shown = capsys.readouterr().out
    assert "2 users" in shown and "gti" in shown and ".500 .000–1.000" in shown
    assert "random" not in shown, "not judged yet"


def test_the_demo_leads_to_the_study_that_was_run():
    """One seed of the world's study, arm by arm as it was reported."""
    from gti_train.study.config import read_study

    reported = read_study(Path(__file__).parents[3] / "reports" / "studies" / "world" / "study.toml").model_dump()
    shipped = read_study(RECOMMEND).model_dump()
    for key in ("chat", "data", "sids", "grounding", "fine_tuning", "evaluation"):
        assert shipped[key] == reported[key], key
    assert set(shipped["arms"]) == {"mean", "random", "gti"}  # the study has others beside them
    assert all(arm == reported["arms"][name] for name, arm in shipped["arms"].items())
