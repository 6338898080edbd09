"""A study of a tiny model runs end to end: what is shared is made once, results say what they are, a kill loses one stage."""

import json
import shutil
from pathlib import Path

import pytest

from gti_diag.errors import InputError
from gti_train.study import work
from gti_train.study.config import read_study
from gti_train.study.demo import demo_study
from gti_train.study.plan import plan
from gti_train.study.stages import run_stages, waiting


def outputs(study):
    return [stage.output for stage in plan(study)]


def result(out: Path, name: str):
    return json.loads((out / "results" / "seed-0" / name).read_text())


def test_every_arm_is_judged_drawn_and_measured(done):
    out, _ = done
    for arm in ("mean", "gti", "gti-tasks"):
        judged = result(out, f"arms/{arm}/eval.json")
        assert (judged["study"], judged["arm"], judged["seed"], judged["users"]) == ("tiny", arm, 0, 8)
        assert set(judged["per_user"]) == {"user_ids", "recall@5", "ndcg@5", "recall@10", "ndcg@10"}
        assert sum(judged["per_user"]["recall@10"]) / 8 == pytest.approx(judged["metrics"]["recall@10"]["value"])
        curve = result(out, f"arms/{arm}/sft.json")
        assert curve["step"] == list(range(1, 3 if arm == "gti-tasks" else 4))
        assert "matrices" in result(out, f"arms/{arm}/geometry.json")
    assert result(out, "baselines.json")["user_ids"] == result(out, "arms/mean/eval.json")["per_user"]["user_ids"]
    assert [entry["step"] for entry in result(out, "gti/ground.json")["measured"]] == [2, 3]


def test_two_arms_begin_from_one_grounding_and_models_go_when_they_are_judged(done):
    out, stages = done
    names = [stage.output for stage in stages]
    assert [name for name in names if name.startswith("seed-0/gti")] == ["seed-0/gti"]
    assert not list((out / "seed-0" / "tuned").iterdir())
    assert waiting(stages, out) == set()


def test_a_killed_study_goes_on_where_it_was(done, study_file, tmp_path, monkeypatch):
    """What was finished before the kill is the same bytes after it; the killed stage leaves no half of itself."""
    out, stages = done
    again = shutil.copytree(out, tmp_path / "run", copy_function=shutil.copy2)
    shutil.rmtree(again / "results" / "seed-0" / "arms" / "gti")
    asked = waiting(stages, again)
    assert {name for name in asked if "/arms/" in name} == {
        f"results/seed-0/arms/gti/{name}.json" for name in ("eval", "sft", "geometry")
    }

    def kill(stage, share, detail):
        if stage.output == "seed-0/tuned/gti" and 0 < share < 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(stages, again, progress=kill)
    assert not (again / "seed-0" / "tuned" / "gti").exists()
    run_stages(stages, again)
    assert result(again, "arms/gti/eval.json") == result(out, "arms/gti/eval.json")


def test_a_source_is_read_once_for_all_seeds_and_a_world_drawn_for_each(study_file, done):
    out, _ = done
    shared = outputs(
        read_study(study_file, changes={"seeds": [0, 1], "data": {"source": str(out / "seed-0/catalogue"), "users": 5}})
    )
    assert [name for name in shared if "catalogue" in name] == ["catalogue"]
    assert [name for name in shared if name.endswith("/mean")] == ["seed-0/mean", "seed-0/tuned/mean", "seed-1/mean", "seed-1/tuned/mean"]  # fmt: skip
    drawn = outputs(read_study(study_file, changes={"seeds": [0, 1]}))
    assert [name for name in drawn if "catalogue" in name] == ["seed-0/catalogue", "seed-1/catalogue"]
    assert drawn.index("results/seed-0/arms/gti-tasks/geometry.json") < drawn.index("seed-1/catalogue")


def test_a_source_that_is_not_there_is_told_before_anything_runs(study_file, tmp_path):
    study = read_study(study_file, changes={"data": {"source": str(tmp_path / "shop")}})
    with pytest.raises(InputError, match=r"data\.source: .*shop: no such file or folder"):
        plan(study)


def test_users_of_a_source_are_drawn_by_the_seed_of_the_data(done, tmp_path):
    from gti_train.study.config import Data

    source = str(done[0] / "seed-0" / "catalogue")
    found = {}
    for seed in (0, 1, 2):
        work.catalogue(tmp_path, lambda *_: None, to=f"c{seed}", data=Data(source=source, users=4, seed=seed), seed=0)
        lines = (tmp_path / f"c{seed}" / "histories.jsonl").read_text().splitlines()
        found[seed] = [json.loads(line)["user_id"] for line in lines]
        assert len(found[seed]) == 4
    assert len({tuple(users) for users in found.values()}) > 1
    with pytest.raises(InputError, match="not 99: ask for fewer"):
        work.catalogue(tmp_path, lambda *_: None, to="c", data=Data(source=source, users=99), seed=0)


def test_stages_come_after_what_they_need(study_file):
    for study in (read_study(study_file), demo_study({})):
        names = outputs(study)
        assert len(set(names)) == len(names)
        for place, stage in enumerate(plan(study)):
            assert set(stage.needs) <= set(names[:place])


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[fine_tuning]\nsteps", "[fine_tuning]\nstepz", "'fine_tuning.stepz' that it must not have, did you mean 'steps'"),
        ('name = "tiny"', 'nam = "tiny"', "'nam' that it must not have, did you mean 'name'"),
        ("steps = 2 }", "stps = 2 }", "'arms.gti-tasks.fine_tuning.stps' that it must not have, did you mean 'steps'"),
        ('start = "mean"', 'start = "median"', "arms.mean.start is 'median'"),
        ('start = "gti"', 'start = "gti"\nspread = 1.0', "spread: is for random and description, not for a gti start"),
        ("[arms.mean]", "[arms.other]", "baseline: no arm is called 'mean'; name one of other, gti, gti-tasks"),
        ('name = "tiny"', 'name = "tiny"\nseeds = [1, 1]', "one is there twice"),
        ('name = "tiny"', "name = tiny", "is not TOML"),
        ('start = "mean"', 'start = "mean"\nseeds = [5]', r"arms\.mean\.seeds: 5 is none of the study's seeds"),
    ],
)  # fmt: skip
def test_a_study_that_is_wrong_is_refused_in_one_line(study_file, tmp_path, old, new, message):
    file = tmp_path / "wrong.toml"
    file.write_text(study_file.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_study(file)
    assert "\n" not in str(caught.value)


def test_the_demonstration_ends_with_three_starts_side_by_side(tiny_model, tmp_path):
    small = {
        "model": str(tiny_model),
        "data": {"items": 90},
        "sids": {"dimensions": 16, "sizes": [12, 10]},
        "grounding": {"steps": 2},
    }
    run_stages(plan(demo_study(small)), tmp_path)
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())["analyses"]
    assert [analysis["checkpoint"]["name"] for analysis in found] == ["mean", "random", "gti"]
    assert found[0]["matrices"]["input"]["verdict"]["label"] == "collapsed"
    assert found[2]["matrices"]["input"]["groups"]["new"]["unique_rows"] > 10
