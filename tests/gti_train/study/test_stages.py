"""Stages are skipped while what they depend on is the same, and redone, alone or with what depends on them, when it is not."""

from dataclasses import replace
from functools import partial

import pytest

from gti_train.study.stages import Stage, costs, fingerprint, forget, run_stages, waiting


def writes(out, tell, *, to, ran):
    tell(0.5, "half")
    ran.append(to)
    (out / to).mkdir(parents=True)
    (out / to / "made").write_text(to)


@pytest.fixture
def chain():
    """a -> b -> c, where b is spent when c is there; and the outputs in the order in which they were made."""
    ran = []

    def make(name, *needs, **more):
        return Stage(name, name, 1, partial(writes, to=name, ran=ran), {"of": name}, needs, **more)

    return [make("a"), make("seed/b", "a", spent=True), make("c", "seed/b")], ran


def changed(stages, name, **settings):
    return [replace(stage, settings=settings) if stage.output == name else stage for stage in stages]


def test_finished_stages_are_skipped_and_told_so(chain, tmp_path):
    stages, ran = chain
    run_stages(stages, tmp_path)
    told = []
    run_stages(stages, tmp_path, progress=lambda stage, share, detail: told.append((stage.output, share, detail)))
    assert ran == ["a", "seed/b", "c"]
    assert told == [(name, 1.0, "finished before") for name in ran]


def test_what_is_spent_goes_and_comes_back_only_when_needed(chain, tmp_path):
    stages, ran = chain
    run_stages(stages, tmp_path)
    assert not (tmp_path / "seed/b").exists()
    run_stages(changed(stages, "c", of="more"), tmp_path)
    assert ran == ["a", "seed/b", "c", "seed/b", "c"]
    assert not (tmp_path / "seed/b").exists()


@pytest.mark.parametrize(
    "name, redone", [("a", ["a", "seed/b", "c"]), ("seed/b", ["seed/b", "c"]), ("c", ["seed/b", "c"])]
)
def test_a_changed_setting_redoes_what_depends_on_it(chain, tmp_path, name, redone):
    stages, ran = chain
    run_stages(stages, tmp_path)
    ran.clear()
    other = changed(stages, name, of="other")
    assert waiting(other, tmp_path) == set(redone)
    run_stages(other, tmp_path)
    assert ran == redone


def test_a_lost_output_is_redone_alone_and_a_forgotten_run_whole(chain, tmp_path):
    stages, ran = chain
    run_stages(stages, tmp_path)
    ran.clear()
    (tmp_path / "a" / "made").unlink()
    (tmp_path / "a").rmdir()
    run_stages(stages, tmp_path)
    assert ran == ["a"]
    ran.clear()
    forget(tmp_path)
    run_stages(stages, tmp_path)
    assert ran == ["a", "seed/b", "c"]


def test_an_interrupted_stage_keeps_its_states_until_its_settings_change(chain, tmp_path):
    stages, ran = chain

    def killed(out, tell):
        (out / "c.state").mkdir()
        raise KeyboardInterrupt

    broken = [*stages[:2], replace(stages[2], run=killed)]
    with pytest.raises(KeyboardInterrupt):
        run_stages(broken, tmp_path)
    assert waiting(stages, tmp_path) == {"c"}
    run_stages(stages, tmp_path)
    assert ran == ["a", "seed/b", "c"]
    assert (tmp_path / "c.state").is_dir()
    with pytest.raises(FileExistsError):
        run_stages([*stages[:2], replace(broken[2], settings={"of": "new"}, run=partial(_both, ran))], tmp_path)
    assert not (tmp_path / "c.state").exists(), "states of other settings are no beginning"


def _both(ran, out, tell):
    raise FileExistsError


def test_costs_are_kept(chain, tmp_path):
    stages, _ = chain
    run_stages(stages, tmp_path)
    found = costs(stages, tmp_path)
    assert list(found) == ["a", "seed/b", "c"]
    assert all(cost["seconds"] >= 0 and len(cost["key"]) == 64 for cost in found.values())


def test_foreign_output_without_a_marker_is_not_removed(chain, tmp_path):
    stages, _ = chain
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        run_stages(stages, tmp_path)
    assert (tmp_path / "a" / "thesis.txt").read_text() == "mine"


def test_fingerprints_see_names_sizes_and_both_ends(tmp_path):
    file = tmp_path / "folder" / "weights"
    file.parent.mkdir()
    file.write_bytes(bytes(3 << 20))
    whole = fingerprint(file.parent)
    assert fingerprint(file.parent) == whole
    file.write_bytes(bytes(3 << 20)[:-1] + b"x")
    last = fingerprint(file.parent)
    file.rename(file.with_name("other"))
    assert len({whole, last, fingerprint(tmp_path / "folder")}) == 3
    assert fingerprint("org/model-on-a-hub") == "org/model-on-a-hub"
