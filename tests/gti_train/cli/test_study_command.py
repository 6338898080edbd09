"""gti-train run says what it would do, and summarise needs results."""

from gti_train.study.demo import STUDY


def test_dry_run_lists_stages_and_makes_nothing(command, tmp_path):
    code, out, _ = command("run", STUDY, "--out", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "seed-0/gti" in out
    assert "as SmolLM2-135M takes on one thread" in " ".join(out.split())
    assert not (tmp_path / "run").exists()


def test_a_study_that_is_not_there_and_results_that_are_none(command, tmp_path):
    code, _, err = command("run", tmp_path / "study.toml", "--out", tmp_path / "run")
    assert code == 2 and "study.toml" in err
    code, _, err = command("summarise", tmp_path, "--out", tmp_path / "drawn")
    assert code == 2 and "no results of a study" in err
