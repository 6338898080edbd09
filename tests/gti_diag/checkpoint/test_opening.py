"""Opening checkpoint folders: what transformers writes, and what damage does to it."""

import json
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.checkpoint.ranges import runs
from gti_diag.errors import InputError

CODES = [f"<{level}_{code}>" for level in "abc" for code in range(8)]


def stored(folder, name="model.embed_tokens.weight"):
    return next(t[name] for t in map(load_file, sorted(folder.glob("*.safetensors"))) if name in t)


def test_rows_are_the_stored_rows_in_the_order_asked(tiny_lm):
    folder = tiny_lm(new_tokens=CODES, dtype=torch.bfloat16)
    checkpoint = open_checkpoint(folder)
    matrix, truth = checkpoint.matrices["input"], stored(folder)
    assert (checkpoint.format, matrix.dtype, matrix.shape) == ("safetensors", torch.bfloat16, tuple(truth.shape))
    assert torch.equal(matrix.rows(), truth)
    ids = torch.tensor([5, 300, 5, 0, len(truth) - 1])
    assert torch.equal(matrix.rows(ids), truth[ids])
    assert torch.equal(torch.cat(list(matrix.tiles(size=100))), truth)
    assert [len(tile) for tile in matrix.tiles(ids, size=2)] == [2, 2, 1]
    assert matrix.rows(torch.tensor([], dtype=torch.long)).shape == (0, truth.shape[1])


def test_an_id_that_is_no_row_is_refused(tiny_lm):
    with pytest.raises(ValueError, match=r"row ids of model\.embed_tokens\.weight must lie in 0\.\."):
        open_checkpoint(tiny_lm()).matrices["input"].rows(torch.tensor([-1]))


def test_sharded_equals_single(tiny_lm):
    single, sharded = tiny_lm("one"), tiny_lm("many", max_shard_size="40KB")
    found = open_checkpoint(sharded)
    assert found.format == "safetensors-sharded"
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert torch.equal(found.matrices["input"].rows(), stored(single))
    assert found.fingerprint == open_checkpoint(single).fingerprint


def test_shards_without_an_index_must_be_complete(tiny_lm):
    folder = tiny_lm(max_shard_size="40KB")
    (folder / "model.safetensors.index.json").unlink()
    assert open_checkpoint(folder).matrices["input"].shape[1] == 48
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(InputError, match="lacks part 2 of"):
        open_checkpoint(folder)


def other_head(folder, name="lm_head.weight"):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = -tensors[name]
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("family, output", [("llama", "lm_head.weight"), ("gpt2", "lm_head.weight")])
def test_an_untied_head_is_a_second_matrix(tiny_lm, family, output):
    folder = tiny_lm(family=family, tied=False)
    other_head(folder)
    found = open_checkpoint(folder)
    assert (found.tied, found.matrices["output"].name, found.notes) == (False, output, ())
    assert torch.equal(found.matrices["output"].rows(), stored(folder, output))
    assert set(open_checkpoint(tiny_lm("tied", family=family)).matrices) == {"input"}


def test_config_and_tensors_that_disagree_are_told(tiny_lm):
    folder = tiny_lm(tied=False)
    other_head(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    found = open_checkpoint(folder)
    assert not found.tied
    assert found.notes[0].startswith("silently untied")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    found = open_checkpoint(folder)
    assert found.tied
    assert found.notes[0].startswith("silently tied")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    found = open_checkpoint(folder)
    assert found.tied
    assert found.notes[0].startswith("retied")


def test_tensor_chooses_and_unknown_layouts_are_ranked(tmp_path):
    save_file({"a.item_emb": torch.rand(9, 4), "b.table": torch.rand(7, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"--tensor NAME; candidates: a\.item_emb 9×4, b\.table 7×4"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, tensor="b.table").matrices["input"].shape == (7, 4)
    with pytest.raises(InputError, match=r"no tensor 'c'; candidates: a\.item_emb"):
        open_checkpoint(tmp_path, tensor="c")
    (tmp_path / "config.json").write_text('{"vocab_size": 7}')
    found = open_checkpoint(tmp_path)
    assert found.matrices["input"].name == "b.table"
    assert "unknown layout" in found.notes[0]


def test_vocabulary_is_what_the_tokenizer_says(tiny_lm, tiny_tokenizer):
    vocabulary = open_checkpoint(tiny_lm(new_tokens=CODES)).vocabulary
    expected = {**tiny_tokenizer.get_vocab(), **{token: len(tiny_tokenizer) + n for n, token in enumerate(CODES)}}
    assert {token: id for id, token in enumerate(vocabulary.tokens)} == expected
    assert set(CODES) <= set(vocabulary.added.values())
    assert {vocabulary.tokens[id] for id in vocabulary.special} == {"<unk>", "<s>", "</s>"}


def test_a_list_of_pieces_is_a_vocabulary(tmp_path):
    save_file({"model.embed_tokens.weight": torch.rand(3, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "pieces.json").write_text('{"tokens": ["<unk>", " a", "b"]}')
    assert open_checkpoint(tmp_path).vocabulary.tokens == ("<unk>", " a", "b")


def sidecar(**changes):
    return {"schema": 1, "new_tokens": CODES[:2], "ids": [392, 393], "levels": [1, 2], **changes}


def test_the_sidecar_is_held_against_its_form_the_matrix_and_the_tokenizer(tiny_lm, tiny_tokenizer):
    folder = tiny_lm(new_tokens=CODES)
    first = len(tiny_tokenizer)
    ids = [first, first + 1]
    (folder / "gti.json").write_text(json.dumps(sidecar(ids=ids)))
    assert open_checkpoint(folder).sidecar["ids"] == ids
    for changes, message in [
        ({"schema": 2}, "schema 2"),
        ({"ids": [4]}, "ids lists 1 entries for 2 new_tokens"),
        ({"ids": [4, 4]}, "ids lists 4 twice"),
        ({"new_tokens": ["<a_0>", "<a_0>"]}, "new_tokens lists '<a_0>' twice"),
        ({"ids": [first, 99999]}, r"places '<a_1>' at id 99999, the matrix has"),
        ({"ids": [first, -1]}, "ids.1 is -1"),
        ({"ids": [first, "7"]}, r"ids\.1 is '7', it should be a whole number"),
        ({"ids": [first, True]}, "it should be a whole number"),
        ({"levels": [1]}, "levels lists 1 entries"),
        ({"levels": [0, 1]}, r"levels\.0 is 0, it should be greater"),
        ({"codebooks": "../secret.safetensors"}, "should be a plain file name"),
        ({"init": ["mean"]}, "init is .*it should be a text"),
        ({"of": "another kind"}, "has a key 'of'"),
        ({"ids": [100, 101]}, r"calls id 100 '<a_0>', but tokenizer\.json calls it"),
        ({"ids": [first + 1, first]}, "calls it '<a_1>'"),
    ]:
        changes = {"ids": ids, **changes}
        (folder / "gti.json").write_text(json.dumps(sidecar(**changes)))
        with pytest.raises(InputError, match=message):
            open_checkpoint(folder)


# --- damage ---------------------------------------------------------------------------------------------------------


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def no_header(folder):
    (folder / "model.safetensors").write_bytes(b"\x01")


def huge_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")


def long_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 90_000_000) + b"{}")


def header(text, data=16):
    def write(folder):
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(data))

    return write


def entry(name="model.embed_tokens.weight", dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return f'"{name}": {{"dtype": "{dtype}", "shape": {list(shape)}, "data_offsets": {list(offsets)}}}'


def index(files):
    def write(folder):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))

    return write


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (truncate, "ends at byte .* but the file has"),
        (no_header, "too few for a safetensors file"),
        (huge_header, "claims a header of 1,099,511,627,776 bytes"),
        (long_header, "claims a header of 90,000,000 bytes but has 10 in all"),
        (header("{nonsense"), "is not usable JSON"),
        (header("[1]"), "not a JSON object"),
        (header("[" * 100_000), "nested too deeply"),
        (header("{" + entry() + "," + entry() + "}"), "key 'model.embed_tokens.weight' twice"),
        (header("{" + entry() + "," + entry("b", offsets=(8, 24)) + "}", data=64), "overlap"),
        (header("{" + entry() + "," + entry("b", offsets=(17, 33)) + "}", data=64), "leave a hole"),
        (header("{" + entry(shape=(1, 2), offsets=(0, 8)) + "}"), "has .* bytes after its last tensor"),
        (header("{" + entry(offsets=(0, 10**15)) + "}"), "cannot lie in bytes"),
        (header("{" + entry(shape=(2**40, 2**40)) + "}"), "cannot lie in bytes"),
        (header("{" + entry(shape=(10**6, 10**6), offsets=(0, 4 * 10**12)) + "}"), "but the file has"),
        (header("{" + entry(shape=(-2, -2)) + "}"), "lacks a usable dtype, shape"),
        (header("{" + entry(shape=(4,), offsets=(0, 16)) + "}"), "an embedding is a floating-point matrix"),
        (header("{" + entry(dtype="I32") + "}"), "an embedding is a floating-point matrix"),
        (header("{}", data=0), "holds no floating-point matrix"),
        (index({"model.embed_tokens.weight": "gone.safetensors"}), "'gone.safetensors', which is not there"),
        (index({"model.embed_tokens.weight": "../model.safetensors"}), "not a plain file name"),
        (index({"model.embed_tokens.weight": "/etc/passwd"}), "not a plain file name"),
        (index({"x.embed_tokens.weight": "model.safetensors"}), "lacks tensor 'x.embed_tokens.weight' that the index"),
        (index([]), "no usable weight_map"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: is not usable JSON"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_damage_is_one_clear_line(tiny_lm, damage, message):
    folder = tiny_lm()
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_file_cut_after_opening_is_an_error_when_rows_are_read(tiny_lm):
    folder = tiny_lm()
    matrix = open_checkpoint(folder).matrices["input"]
    truncate(folder)
    truncate(folder)
    with pytest.raises(InputError, match="it is truncated"):
        matrix.rows(torch.tensor([matrix.shape[0] - 1]))


def test_symlink_loops_are_an_error(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"loop: (does not exist|cannot be read)"):
        open_checkpoint(tmp_path / "loop")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: (is not a file|cannot be read)"):
        open_checkpoint(tmp_path)


@given(st.sets(st.integers(0, 400), min_size=1))
def test_runs_cover_the_ids_at_a_tenth_more_rows(ids):
    ids = np.array(sorted(ids))
    found = runs(ids)
    covered = np.concatenate([np.arange(a, b) for a, b in found])
    assert set(ids) <= set(covered)
    assert len(set(covered)) == len(covered) <= 1.1 * len(ids)
