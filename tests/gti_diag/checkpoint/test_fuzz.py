"""Damaged files of every format: a reader either reads rows or refuses in one line, and nothing else.

`reports/fuzz/run.py` runs the same cases by the ten thousand.
"""

import functools
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

NAME = "model.embed_tokens.weight"
NUMBERS = [0, 1, -1, 7, 8, 2**31, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, True, None, "x", [], {}]


def safetensors(folder, rows):
    save_file({NAME: rows, "b": torch.ones(3)}, folder / "model.safetensors")


def index(folder, rows):
    save_file({NAME: rows}, folder / "model-00001-of-00001.safetensors")
    files = {"weight_map": {NAME: "model-00001-of-00001.safetensors"}, "metadata": {"total_size": 128}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(files))


def torch_file(folder, rows):
    torch.save({NAME: rows}, folder / "pytorch_model.bin")


def old_torch_file(folder, rows):
    torch.save({NAME: rows}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def gguf(folder, rows):
    from tests.gti_diag.checkpoint.test_formats import write_gguf

    write_gguf(folder / "m.gguf", rows.repeat(1, 8), "Q8_0")


def npy(folder, rows):
    np.save(folder / "a.npy", rows.numpy())


def npz(folder, rows):
    np.savez_compressed(folder / "a.npz", a=rows.numpy(), tokens=np.array(["x"] * len(rows)))


def distributed(folder, rows):
    import torch.distributed.checkpoint as dcp

    dcp.save({NAME: rows}, checkpoint_id=folder, no_dist=True)


def described(folder, rows):
    """An ordinary folder of which a description is damaged."""
    safetensors(folder, rows)
    vocab = {f"w{n}": n for n in range(6)}
    tokens = [{"id": 6, "content": "<a_0>", "special": False}, {"id": 7, "content": "<a_1>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": tokens}))
    (folder / "config.json").write_text(
        json.dumps({"vocab_size": 8, "tie_word_embeddings": False, "architectures": ["XForLM"]})
    )
    sidecar = {"schema": 1, "new_tokens": ["<a_0>", "<a_1>"], "ids": [6, 7], "levels": [1, 1]}
    (folder / "gti.json").write_text(json.dumps(sidecar))


def adapter(folder, rows):
    (folder / "base").mkdir()
    safetensors(folder / "base", rows)
    where = "base_model.model.model.embed_tokens."
    save_file({f"{where}lora_embedding_A": torch.ones(2, 8), f"{where}lora_embedding_B": torch.ones(4, 2),
               f"{where}token_adapter.trainable_tokens_delta": torch.ones(2, 4)},
              folder / "adapter_model.safetensors")  # fmt: skip
    config = {
        "base_model_name_or_path": "base",
        "lora_alpha": 8,
        "r": 2,
        "alpha_pattern": {},
        "trainable_token_indices": [1, 2],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


KINDS = ["number", "number", "number", "text", "word", "flip", "cut", "insert", "erase", "repeat"]

# What is written, and the file of it that is damaged.
TARGETS = {
    "safetensors": (safetensors, "model.safetensors"),
    "index": (index, "model.safetensors.index.json"),
    "torch": (torch_file, "pytorch_model.bin"),
    "old torch": (old_torch_file, "pytorch_model.bin"),
    "gguf": (gguf, "m.gguf"),
    "npy": (npy, "a.npy"),
    "npz": (npz, "a.npz"),
    "distributed metadata": (distributed, ".metadata"),
    "distributed shard": (distributed, "__0_0.distcp"),
    "tokenizer": (described, "tokenizer.json"),
    "config": (described, "config.json"),
    "sidecar": (described, "gti.json"),
    "adapter": (adapter, "adapter_model.safetensors"),
    "adapter config": (adapter, "adapter_config.json"),
}


@functools.cache
def sound(target: str, home: str) -> tuple[Path, bytes]:
    """The folder of a sound checkpoint below `home`, and the bytes of the file to damage."""
    folder = Path(home, target.replace(" ", "-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make, file = TARGETS[target]
    make(folder, torch.arange(32.0).reshape(8, 4))
    return folder / file, (folder / file).read_bytes()


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """`data` cut, flipped, spliced, grown, or with one of its numbers or texts replaced."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif kind == "word":
            word = struct.pack("<Q", draw(st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**31, 2**63]))))
            data = data[:at] + word[: draw(st.sampled_from([2, 4, 8]))] + data[at + 8 :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]
        elif kind == "erase":
            data = data[:at] + data[at + draw(st.integers(1, 32)) :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 40] + data[at:]
        else:
            pattern = rb"-?\d+|true|false|null" if kind == "number" else rb'"[^"]*"'
            spots = list(re.finditer(pattern, data[:20_000]))
            if spots:
                spot = spots[at % len(spots)]
                value = draw(st.sampled_from(NUMBERS)) if kind == "number" else draw(st.text(max_size=6))
                data = data[: spot.start()] + json.dumps(value).encode() + data[spot.end() :]
    return data


def outcome(path: Path, data: bytes) -> str:
    """ "read" or "refused"; anything else is raised."""
    path.write_bytes(data)
    said = _said(path)
    assert "\n" not in said
    assert len(said) < 2000
    return "refused" if said else "read"


def _said(path: Path) -> str:
    """The refusal, or nothing if rows were read."""
    try:
        checkpoint = open_checkpoint(path.parent)
        groups = partition(checkpoint).groups
        for matrix in checkpoint.matrices.values():
            rows = matrix.rows(groups["text"].ids[:4])
            assert rows.shape == (len(groups["text"].ids[:4]), matrix.shape[1])
            assert rows.dtype == matrix.dtype
        return ""
    except InputError as error:
        return str(error)


@st.composite
def cases(draw, home: str, targets: list[str]) -> tuple[str, Path, bytes]:
    target = draw(st.sampled_from(targets))
    path, data = sound(target, home)
    return target, path, draw(damaged(data))


def test_damage_is_read_or_refused(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("fuzz"))

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(cases(home, list(TARGETS)))
    def check(case):
        outcome(*case[1:])

    check()


def test_sound_files_are_read(tmp_path):
    for target in TARGETS:
        path, data = sound(target, str(tmp_path))
        assert outcome(path, data) == "read", target
        assert outcome(path, b"") == ("read" if target == "tokenizer" else "refused"), target  # rows need no names


@settings(deadline=None)
@given(st.binary(max_size=64))
@example(b"")
def test_noise_is_refused(noise):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for file in ("model.safetensors", "m.gguf", "a.npy", "a.npz", ".metadata"):
            path = Path(folder, file)
            assert outcome(path, noise) == "refused"
            path.unlink()
