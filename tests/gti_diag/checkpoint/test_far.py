"""Checkpoints elsewhere: only the header and the rows used travel, whatever the store."""

import functools
import http.server
import json
import os
import threading

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.checkpoint.far import HUB_ID, HubFolder, Kept
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

ROWS, DIM = 4000, 64
NAME = "model.embed_tokens.weight"


class CountingFileSystem(MemoryFileSystem):
    """A store in memory that counts the bytes it gives away."""

    protocol = "counting"
    store: dict = {}  # noqa: RUF012  (as the parent's)
    pseudo_dirs = [""]  # noqa: RUF012
    given: dict[str, int] = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counting://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = super().cat_file(path, start=start, end=end, **kwargs)
        self.given[path] = self.given.get(path, 0) + len(data)
        return data


fsspec.register_implementation("counting", CountingFileSystem, clobber=True)


@pytest.fixture
def matrix():
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0)).bfloat16()


@pytest.fixture
def store(matrix, tmp_path):
    """A sharded checkpoint in the counting store: the embedding among far larger tensors."""
    fs = fsspec.filesystem("counting")
    CountingFileSystem.store.clear()
    CountingFileSystem.given.clear()
    parts = {
        "model-00001-of-00002.safetensors": {NAME: matrix, "model.layers.0.mlp.weight": torch.zeros(3000, 1000)},
        "model-00002-of-00002.safetensors": {"model.layers.1.mlp.weight": torch.zeros(3000, 1000)},
    }
    fs.mkdirs("/bucket/ckpt", exist_ok=True)
    for file, tensors in parts.items():
        save_file(tensors, tmp_path / file)
        fs.put_file(str(tmp_path / file), f"/bucket/ckpt/{file}")
    index = {"weight_map": {name: file for file, tensors in parts.items() for name in tensors}}
    fs.pipe("/bucket/ckpt/model.safetensors.index.json", json.dumps(index).encode())
    fs.pipe("/bucket/ckpt/config.json", json.dumps({"vocab_size": ROWS, "tie_word_embeddings": True}).encode())
    fs.pipe(
        "/bucket/ckpt/vocab.txt", "\n".join([f"w{n}" for n in range(3968)] + [f"<a_{n}>" for n in range(32)]).encode()
    )
    return "counting://bucket/ckpt"


def weight_bytes():
    return sum(count for path, count in CountingFileSystem.given.items() if path.endswith(".safetensors"))


def test_only_the_header_and_the_rows_used_travel(store, matrix):
    found = open_checkpoint(store)
    assert weight_bytes() < 1000
    for _ in range(2):  # no byte travels twice
        ids = torch.cat([torch.arange(0, 400), torch.arange(500, 3000, 7), torch.tensor([3999, 1])])
        assert torch.equal(found.matrices["input"].rows(ids), matrix[ids])
    assert weight_bytes() <= 1.2 * len(ids) * DIM * 2
    assert found.tied
    assert not any("model-00002" in path for path in CountingFileSystem.given)


def test_a_partition_and_every_pass_read_each_row_once(store, matrix):
    found = open_checkpoint(store)
    groups = partition(found).groups
    assert groups["new"].count == 32
    for group in groups.values():
        assert torch.equal(found.matrices["input"].rows(group.ids), matrix[group.ids])
    assert weight_bytes() <= 1.2 * matrix.numel() * 2
    assert len(found.fingerprint) == 64


def test_describe_is_plain_data(store):
    from gti_diag.checkpoint.inspect import describe

    found = open_checkpoint(store)
    before = weight_bytes()
    told = describe(found, partition(found, scan=False))
    assert weight_bytes() == before  # no row was read
    assert json.loads(json.dumps(told)) == told
    assert told["matrices"]["input"] == {
        "tensor": NAME, "shape": [ROWS, DIM], "dtype": "bfloat16", "bytes": ROWS * DIM * 2,
    }  # fmt: skip
    assert told["tokens"]["groups"]["new"] == {
        "count": 32, "levels": 1, "level_counts": [32], "families": ["codes"],
        "first": ["<a_0>", "<a_1>", "<a_2>"], "last": ["<a_29>", "<a_30>", "<a_31>"],
    }  # fmt: skip


def test_torch_files_travel_by_range_too(matrix, tmp_path):
    fs = fsspec.filesystem("counting")
    CountingFileSystem.given.clear()
    torch.save({NAME: matrix, "other": torch.zeros(3000, 1000)}, tmp_path / "pytorch_model.bin")
    fs.put_file(str(tmp_path / "pytorch_model.bin"), "/bucket/torch/pytorch_model.bin")
    found = open_checkpoint("counting://bucket/torch/pytorch_model.bin")
    assert torch.equal(found.matrices["input"].rows(), matrix)
    given = sum(CountingFileSystem.given.values())
    assert given <= 1.2 * matrix.numel() * 2


@pytest.mark.parametrize(
    "url, message",
    [
        ("counting://bucket/absent", "counting://.*absent: cannot be read"),
        ("nosuch://bucket/x", "is not a usable address"),
        ("counting://bucket/empty", "holds no weights"),
    ],
)
def test_a_store_that_has_nothing_is_one_line(store, url, message):
    fsspec.filesystem("counting").pipe("/bucket/empty/readme.md", b"x")
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(url)
    assert "\n" not in str(caught.value)


def test_a_store_that_fails_midway_is_one_line(store, monkeypatch):
    found = open_checkpoint(store)

    def fail(*args, **kwargs):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(CountingFileSystem, "cat_file", fail)
    with pytest.raises(InputError, match=r"cannot be read \(gone\)"):
        found.matrices["input"].rows()
    monkeypatch.setattr(CountingFileSystem, "cat_file", lambda *args, **kwargs: b"short")
    with pytest.raises(InputError, match="gave 5 bytes for the range"):
        found.matrices["input"].rows()


class Handler(http.server.SimpleHTTPRequestHandler):
    """A plain web server with byte ranges and without listings."""

    sent = 0

    def log_message(self, *args):
        pass

    def list_directory(self, path):
        self.send_error(404)

    def do_GET(self):
        span = self.headers.get("Range")
        if span is None or not os.path.isfile(self.translate_path(self.path)):
            return super().do_GET()
        with open(self.translate_path(self.path), "rb") as file:
            data = file.read()
        first, last = span.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        type(self).sent += len(part)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.fixture
def server(tmp_path):
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_web_server_without_listings(server, tmp_path, matrix):
    (tmp_path / "ckpt").mkdir()
    save_file({NAME: matrix, "other": torch.zeros(3000, 100)}, tmp_path / "ckpt" / "model.safetensors")
    (tmp_path / "ckpt" / "config.json").write_text('{"tie_word_embeddings": true}')
    Handler.sent = 0
    for url in (f"{server}/ckpt", f"{server}/ckpt/model.safetensors"):
        found = open_checkpoint(url)
        assert torch.equal(found.matrices["input"].rows(torch.arange(100, 300)), matrix[100:300])
        assert (found.format, found.tied) == ("safetensors", True)
    assert Handler.sent <= 2 * (1.2 * 200 * DIM * 2 + 1000)
    with pytest.raises(InputError, match="has no checkpoint file of a usual name"):
        open_checkpoint(f"{server}/nowhere")


def test_a_server_that_does_not_answer_is_said():
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:1/x/model\.safetensors: cannot be reached \(.*127"):
        open_checkpoint("http://127.0.0.1:1/x/model.safetensors")


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, repo, revision",
    [("org/name", "org/name", None), ("a.b/c-d_e.f@refs/pr/3", "a.b/c-d_e.f", "refs/pr/3"), ("gpt2", "gpt2", None),
     ("bert-base-uncased@main", "bert-base-uncased", "main"),
     ("a/b/c", None, None), ("../x", None, None), ("/abs/x", None, None)],
)  # fmt: skip
def test_hub_ids_are_told_from_paths(text, repo, revision):
    found = HUB_ID.fullmatch(text)
    assert (found and (found["repo"], found["revision"])) == (repo and (repo, revision))


def test_only_the_files_needed_come_from_the_hub(tiny_lm, monkeypatch):
    """The hub is played by a folder: its listing and its download are all that is asked of it."""
    import huggingface_hub

    folder, asked = tiny_lm(max_shard_size="40KB"), []
    files = [file.name for file in folder.iterdir()] + ["onnx/model.onnx", "pytorch_model.bin"]

    class Api:
        def model_info(self, repo, revision=None):
            assert (repo, revision) == ("org/name", "v1")
            siblings = [{"rfilename": file} for file in files]
            return huggingface_hub.ModelInfo(id=repo, sha="abcdef123", siblings=siblings)

    def download(repo, name, *, revision):
        assert (repo, revision) == ("org/name", "abcdef123")
        asked.append(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    found = open_checkpoint("org/name@v1")
    assert found.matrices["input"].rows().shape == found.matrices["input"].shape
    shards = {name for name in asked if name.endswith(".safetensors")}
    assert len(shards) == 1 < len(list(folder.glob("*.safetensors")))
    assert "pytorch_model.bin" not in asked
    assert found.vocabulary.size == 400


def test_offline_the_hub_says_no_in_one_line(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"nobody/nothing@main: is no local path, and the hub does not give it"
    ) as caught:
        open_checkpoint("nobody/nothing@main")
    assert "\n" not in str(caught.value)


def test_a_hub_folder_has_subfolders():
    root = HubFolder("o/n", "c" * 40, ("config.json", "a/x.bin", "a/b/y.bin"))
    assert (root.names(), root.folders()) == (("config.json",), ("a",))
    inner = root.into("a")
    assert (inner.names(), inner.folders(), inner.root) == (("x.bin",), ("b",), "o/n@cccccccc/a")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8))
def test_kept_bytes_are_the_files_bytes(requests):
    truth, kept, moved = np.arange(80, dtype=np.uint8), Kept(), 0
    for start, length in requests:
        missing = kept.missing(start, start + length)
        kept.put(missing, np.concatenate([truth[a:b] for a, b in missing]) if missing else truth[:0])
        moved += sum(b - a for a, b in missing)
        assert kept.get([(start, start + length)]).tolist() == truth[start : start + length].tolist()
    assert moved == len({place for start, length in requests for place in range(start, start + length)})
