"""A study that several machines share is, joined, the study that one ran."""

import json
import shutil

import pytest

from gti_diag.errors import InputError
from gti_train.study.config import read_study
from gti_train.study.joining import join
from gti_train.study.manifest import write_manifest
from gti_train.study.plan import Part, part_of, plan
from gti_train.study.running import run_study
from gti_train.study.stages import run_stages
from gti_train.study.summary import summarise


def manifest(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_parts_joined_are_the_whole(done, study_file, tmp_path):
    study = read_study(study_file)
    parts = []
    for number, arms in enumerate((["mean"], ["gti", "gti-tasks"])):  # the second has no arm to compare with by itself
        out = tmp_path / f"part-{number}"
        stages = plan(study, part_of(study, arms=arms, seeds=[0]))
        run_stages(stages, out)
        write_manifest(study, stages, out, out / "results")
        summarise(out / "results", out, formats=())
        parts.append(out / "results")
    manifest(parts[1], machine={"processors": 64})
    joined = join(parts, tmp_path / "whole")
    summarise(joined, tmp_path / "whole", formats=())
    assert (tmp_path / "whole" / "tables.md").read_text() == (done[0] / "tables.md").read_text()
    found = json.loads((joined / "manifest.json").read_text())
    assert set(found["stages"]) == {stage.output for stage in done[1]}
    (other,) = found["other_machines"]
    assert other["processors"] == 64 and "seed-0/tuned/gti" in other["stages"] and "base" not in other["stages"]
    again = join([joined, parts[1]], tmp_path / "again")  # what was joined is a part like any other
    assert json.loads((again / "manifest.json").read_text()) == found
    step = join(parts[:1], tmp_path / "steps")
    assert "seed-0/tuned/gti" not in json.loads((step / "manifest.json").read_text())["stages"]
    step = join(parts[1:], tmp_path / "steps")  # to what was there
    assert set(json.loads((step / "manifest.json").read_text())["stages"]) == set(found["stages"])


def test_parts_of_other_studies_are_refused(done, tmp_path):
    other = shutil.copytree(done[0] / "results", tmp_path / "other")
    study = json.loads((other / "manifest.json").read_text())["study"]
    manifest(other, study={**study, "chat": False})
    with pytest.raises(InputError, match=r"is of another study than .*: `chat` differs"):
        join([done[0] / "results", other], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    kept = shutil.copytree(other, tmp_path / "old" / "results")
    with pytest.raises(InputError, match=r"old/results is of another study than .*: `chat` differs"):
        join([done[0] / "results"], tmp_path / "old")
    assert (kept / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_an_arm_runs_under_its_own_seeds_and_a_part_under_those_asked_for(study_file):
    study = read_study(study_file, changes={"seeds": [0, 1], "arms": {"gti-tasks": {"seeds": [1]}}})

    def tuned(part):
        return [s.output.replace("/tuned/", " ") for s in plan(study, part) if "/tuned/" in s.output]

    assert tuned(Part()) == ["seed-0 mean", "seed-0 gti", "seed-1 mean", "seed-1 gti", "seed-1 gti-tasks"]
    assert tuned(part_of(study, arms=["gti-tasks", "mean"], seeds=[1])) == ["seed-1 mean", "seed-1 gti-tasks"]
    assert not any("seed-0" in s.output for s in plan(study, part_of(study, arms=["gti-tasks"], seeds=None)))
    with pytest.raises(InputError, match="the study has no seed 7: choose from 0, 1"):
        part_of(study, arms=None, seeds=[7])
    with pytest.raises(InputError, match="the study has no arm rnd: choose from mean, gti, gti-tasks"):
        part_of(study, arms=["rnd"], seeds=None)
    with pytest.raises(InputError, match="no arm is named: choose from mean, gti, gti-tasks"):
        part_of(study, arms=[], seeds=None)
    with pytest.raises(InputError, match="nothing to run: gti-tasks runs under 1"):
        part_of(study, arms=["gti-tasks"], seeds=[0])


def test_a_part_run_later_in_the_same_folder_keeps_what_the_manifest_says(done, study_file, tmp_path):
    out = shutil.copytree(done[0], tmp_path / "run", copy_function=shutil.copy2)
    before = json.loads((out / "results" / "manifest.json").read_text())
    study = read_study(study_file)
    run_study(study, out, part=part_of(study, arms=["mean"], seeds=None))
    assert json.loads((out / "results" / "manifest.json").read_text())["stages"] == before["stages"]
