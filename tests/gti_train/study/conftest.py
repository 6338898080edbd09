"""A tiny model and a study of it that takes seconds."""

import pytest
import torch

from gti_train.study.config import read_study
from gti_train.study.plan import plan
from gti_train.study.running import run_study
from tests.conftest import tiny_config, vocabulary_like

STUDY = """
name = "tiny"
model = "{model}"
[data]
items = 90
users = 8
[sids]
dimensions = 16
sizes = [12, 10]
[grounding]
steps = 3
batch = 4
every = 2
[fine_tuning]
steps = 3
batch = 4
longest = 5
words = 5
[evaluation]
ks = [5, 10]
[arms.mean]
start = "mean"
[arms.gti]
start = "gti"
[arms.gti-tasks]
start = "gti"
fine_tuning = {{ tasks = {{ next = 1.0, "text-to-code" = 0.5 }}, steps = 2 }}
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("llama", len(tiny_tokenizer), True))
    rows = model.get_input_embeddings().weight
    rows.data.copy_(vocabulary_like(*rows.shape, 0))
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def study_file(tmp_path_factory, tiny_model):
    file = tmp_path_factory.mktemp("study") / "study.toml"
    file.write_text(STUDY.format(model=tiny_model))
    return file


@pytest.fixture(scope="session")
def done(study_file, tmp_path_factory):
    """The folder of a finished run, and its stages."""
    out = tmp_path_factory.mktemp("study") / "run"
    study = read_study(study_file)
    run_study(study, out)
    return out, plan(study)
