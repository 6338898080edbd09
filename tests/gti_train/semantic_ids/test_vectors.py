"""Vectors of texts from every encoder and from files, kept between runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gti_diag.errors import InputError
from gti_train.semantic_ids import caching
from gti_train.semantic_ids.caching import Identity, cached
from gti_train.semantic_ids.vectors import text_vectors


def test_text_vectors_put_like_texts_together():
    texts = ["red wool scarf", "blue wool scarf", "cast iron frying pan", "steel frying pan"]
    vectors = text_vectors(texts, dimensions=3)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4, dtype=torch.double))
    nearest = (torch.cdist(vectors, vectors) + torch.eye(4) * 9).argmin(dim=1)
    assert nearest.tolist() == [1, 0, 3, 2]
    assert torch.equal(vectors, text_vectors(texts, dimensions=3))


def test_texts_without_common_words_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        text_vectors(["alone"])
    with pytest.raises(InputError, match="usable word"):
        text_vectors(["the", "of", "and"])
    with pytest.raises(InputError, match=r"text 60 .* shares no word"):
        text_vectors(["green tea", "black tea", "tea pot"] * 20 + ["zzyzx"], dimensions=2)


@pytest.fixture
def bert(tmp_path):
    """A tiny encoder of five words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "wool", "scarf", "iron", "pan"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return str(folder)


TEXTS = ["red wool scarf", "iron pan", "red wool scarf"]


@pytest.mark.parametrize("before", ["", "lm:"])
def test_any_encoder_or_language_model_gives_vectors(bert, before):
    vectors = text_vectors(TEXTS, encoder=before + bert)
    assert vectors.shape == (3, 8)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3, dtype=torch.double))
    assert torch.allclose(vectors[0], vectors[2], atol=1e-6)  # padding beside a longer text changes nothing
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    assert torch.allclose(text_vectors(TEXTS[1:], encoder=before + bert), vectors[1:], atol=1e-6)


def test_a_language_model_without_padding_is_pooled_over_its_words(tiny_lm):
    vectors = text_vectors(["red lamp", "a longer text about an oak desk"], encoder=f"lm:{tiny_lm()}")
    alone = text_vectors(["red lamp", "red lamp"], encoder=f"lm:{tiny_lm()}")
    assert torch.allclose(vectors[0], alone[0], atol=1e-5)


def test_encoded_texts_are_kept_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "PART", 2)
    seen: list[list[str]] = []

    def encode(texts):
        seen.append(list(texts))
        if "stop" in texts:
            raise KeyboardInterrupt
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    identity, told = Identity("test", (), 9), []
    texts = ["ccc", "a", "dddd", "stop", "bb"]
    with pytest.raises(KeyboardInterrupt):
        cached(texts, encode, identity, tmp_path, lambda share, detail: None)
    texts[3] = "then"  # another text is another key: nothing wrong is taken
    found = cached(texts, encode, identity, tmp_path, lambda share, detail: told.append((share, detail)))
    assert found[:, 0].tolist() == [3, 1, 4, 4, 2]
    assert told[-1] == (1.0, "5/5 texts") and seen[-3:] == [["dddd", "then"], ["ccc", "bb"], ["a"]]
    count = len(seen)
    next(tmp_path.rglob("part-00001.safetensors")).write_bytes(b"damaged")
    assert torch.equal(cached(texts, encode, identity, tmp_path, lambda share, detail: None), found)
    assert len(seen) == count + 1  # the damaged part alone
    cached(texts, encode, Identity("other", (), 9), tmp_path, lambda share, detail: None)
    assert len(seen) == count + 4


def test_vectors_are_taken_from_files(tmp_path):
    matrix = np.array([[3.0, 4.0], [0.0, 2.0]])
    np.save(tmp_path / "v.npy", matrix)
    save_file({"z": torch.tensor(matrix)}, tmp_path / "v.safetensors")
    for name in ("v.npy", "v.safetensors"):
        assert text_vectors(["", ""], encoder=str(tmp_path / name)).tolist() == [[0.6, 0.8], [0.0, 1.0]]
    assert load_file(tmp_path / "v.safetensors")["z"].shape == (2, 2)


def test_files_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[1.0, float("nan")], [0.0, 2.0]]))
    with pytest.raises(InputError, match="3 rows are needed"):
        text_vectors(["a"] * 3, encoder=str(tmp_path / "v.npy"))
    with pytest.raises(InputError, match="row 0 holds NaN"):
        text_vectors(["a"] * 2, encoder=str(tmp_path / "v.npy"))
    save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, tmp_path / "v.safetensors")
    with pytest.raises(InputError, match="holds 2 tensors"):
        text_vectors(["a"] * 2, encoder=str(tmp_path / "v.safetensors"))
    (tmp_path / "v.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="cannot be read"):
        text_vectors(["a"] * 2, encoder=str(tmp_path / "v.npy"))


def test_missing_encoders_and_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"--encoder .* cannot be loaded"):
        text_vectors(["a b", "c d"], encoder=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"item 1 \(counted from 0\) has no text"):
        text_vectors(["a b", " "])


@pytest.mark.parametrize("before", ["", "lm:"])
def test_code_in_an_encoder_folder_is_never_run(bert, tmp_path, before):
    folder = Path(bert)
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(InputError, match="needs Python code of its own, which is never run"):
        text_vectors(TEXTS, encoder=before + bert)
    assert not (tmp_path / "ran").exists()
