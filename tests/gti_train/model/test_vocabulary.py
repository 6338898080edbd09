"""New tokens get their own ids and rows; nothing that was there changes."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gti_diag.errors import InputError
from gti_diag.measures.geometry import dispersion
from gti_train.model.loading import load_language_model
from gti_train.model.matrices import matrices
from gti_train.model.sidecar import Sidecar, levels_of, read_references, read_sidecar
from gti_train.model.vocabulary import INITS, extend, extend_checkpoint

CODES = [f"<{level}_{code}>" for level in "ab" for code in range(5)]


def test_ids_rows_and_old_rows(tiny_lm):
    model, tokenizer = load_language_model(tiny_lm(), dtype="float32")
    before, size = matrices(model)["input"].data.clone(), len(tokenizer)
    ids = extend(model, tokenizer, CODES)
    assert ids == list(range(size, size + 10)) == tokenizer.convert_tokens_to_ids(CODES)
    weight = matrices(model)["input"]
    assert weight.shape[0] == len(tokenizer) == model.config.vocab_size == size + 10
    assert torch.equal(weight[:size], before)
    torch.testing.assert_close(weight[ids], before.mean(0).expand(10, -1))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("text, expected", [("<a_1><b_2>", [1, 7]), ("x<a_1>y", [1]), (" <b_4> <a_0>\n", [9, 0])])
def test_codes_in_any_company_become_the_intended_ids(tiny_lm, text, expected):
    model, tokenizer = load_language_model(tiny_lm())
    plain = copy.deepcopy(tokenizer)
    ids = extend(model, tokenizer, CODES)
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [i for i in found if i in ids] == [ids[k] for k in expected]
    assert tokenizer.decode(found) == text
    assert tokenizer.decode(found, skip_special_tokens=True) == text
    for word in ("x", "y", "other kettles"):
        assert tokenizer(word)["input_ids"] == plain(word)["input_ids"]


def test_spare_rows_of_a_padded_matrix_are_used_and_filled(tiny_lm):
    folder = tiny_lm(family="qwen3", rows=408)
    model, tokenizer = load_language_model(folder, dtype="float32")
    size = len(tokenizer)
    before = matrices(model)["input"].data.clone()
    before[size:] = 77.0  # untrained garbage that must neither stay nor count in the mean
    matrices(model)["input"].data.copy_(before)
    ids = extend(model, tokenizer, CODES[:4])
    weight = matrices(model)["input"].data
    assert weight.shape[0] == 408
    assert ids == list(range(size, size + 4))
    torch.testing.assert_close(weight[ids], before[:size].mean(0).expand(4, -1))
    assert torch.equal(weight[size + 4 :], before[size + 4 :])


def test_a_padded_matrix_keeps_its_multiple_and_never_shrinks(tiny_lm):
    model, tokenizer = load_language_model(tiny_lm(rows=416), dtype="float32")
    ids = extend(model, tokenizer, [f"<a_{i}>" for i in range(40)])
    rows = matrices(model)["input"].shape[0]
    assert rows % 32 == 0
    assert max(ids) < rows < max(ids) + 33
    assert torch.unique(matrices(model)["input"].data[len(tokenizer) :], dim=0).shape[0] <= 1


@pytest.mark.parametrize("tokens, message", [
    (["<a_0>", "the"], "'the' is in the vocabulary already"),
    (["<s>"], "'<s>' is in the vocabulary already"),
    (["<a_0>", "<a_0>"], "'<a_0>' is listed 2 times"),
    ([], "no tokens to add"),
    (["ther"], "change how ordinary text is cut"),
    (["oak d"], "tokens such as 'oak d' change how ordinary text is cut"),
])  # fmt: skip
def test_collisions_are_refused(tiny_lm, tokens, message):
    model, tokenizer = load_language_model(tiny_lm())
    if "the" in tokens:
        tokenizer.add_tokens(["the"])
    with pytest.raises(InputError, match=message):
        extend(model, tokenizer, tokens)


def test_words_are_taken_with_a_warning(tiny_lm, caplog):
    model, tokenizer = load_language_model(tiny_lm())
    ids = extend(model, tokenizer, ["zzq", "<b_1>"])
    assert "'zzq' (and 0 more) will be cut out of longer words too: mark codes, as in '<zzq>'" in caplog.text
    assert ids[0] in tokenizer("buzzquake")["input_ids"]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip(tiny_lm, tmp_path, init, tied):
    source = tiny_lm(tied=tied)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    books = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    texts = {token: [f"kettle {token[1]}", "x" * (i + 1)] for i, token in enumerate(CODES)}
    known = {"codebooks": books, "item_means": books[:, :3] + 1, "counts": range(10)}
    given = {"tokens": CODES, "init": init, "seed": 5, "descriptions": texts, **known}
    written = extend_checkpoint(source, tmp_path / "out", **given)
    files = {"codebooks": "codebooks.safetensors", "item_means": "item_means.safetensors"}
    assert read_sidecar(tmp_path / "out") == Sidecar(**{**vars(written), **files})
    assert written.counts == list(range(10))
    assert written.levels == [1] * 5 + [2] * 5
    back = read_references(tmp_path / "out")
    assert torch.equal(back["codebooks"], books)
    assert torch.equal(back["item_means"], books[:, :3] + 1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(CODES) == written.ids
    assert model.dtype == torch.float32  # as the source has it
    assert set(matrices(model)) == ({"input"} if tied else {"input", "output"})
    assert model.config.vocab_size == matrices(model)["input"].shape[0] == len(tokenizer)
    old = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter[: len(old[name])], old[name])
    extend_checkpoint(source, tmp_path / "again", **given)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_sidecar_says_at_which_lengths_rows_started(tiny_lm, tmp_path):
    options = {"tokens": CODES, "init": "random"}
    for norm in ("own", "text"):
        extend_checkpoint(tiny_lm(), tmp_path / norm, **options, norm=norm)
        assert read_sidecar(tmp_path / norm).norm == norm
    extend_checkpoint(tiny_lm(), tmp_path / "wide", **options, spread=0.5)
    rows = matrices(AutoModelForCausalLM.from_pretrained(tmp_path / "wide"))["input"].data
    assert dispersion(rows[-len(CODES) :]) == pytest.approx(0.5 * dispersion(rows[: -len(CODES)]), rel=1e-4)
    assert read_sidecar(tmp_path / "wide").spread == 0.5
    older = json.loads((tmp_path / "own" / "gti.json").read_text())
    del older["norm"]
    (tmp_path / "own" / "gti.json").write_text(json.dumps(older))
    assert read_sidecar(tmp_path / "own").norm is None


def test_output_rows_start_from_output_statistics(tiny_lm, tmp_path):
    source = tiny_lm(tied=False)
    base, _ = load_language_model(source, dtype="float32")
    base.get_output_embeddings().weight.data += 5.0
    base.save_pretrained(source)
    extend_checkpoint(source, tmp_path / "out", tokens=CODES, dtype="float32")
    model, _ = load_language_model(tmp_path / "out", dtype="float32")
    assert float(matrices(model)["output"][-10:].mean()) == pytest.approx(5, abs=0.2)
    assert abs(float(matrices(model)["input"][-10:].mean())) < 0.2


@pytest.mark.parametrize("change, message", [
    ({"init": "best"}, "init 'best' is unknown: use one of mean, random"),
    ({"init": "description"}, "needs descriptions"),
    ({"init": "codebook", "descriptions": {}}, "needs codebooks"),
    ({"levels": [1, 2]}, "levels has 2 entries for 10 tokens"),
    ({"codebooks": torch.ones(3, 2)}, "codebooks has 3 entries for 10 tokens"),
    ({"item_means": torch.ones(3, 2)}, "item_means has 3 entries for 10 tokens"),
    ({"counts": [1, 2]}, "counts has 2 entries for 10 tokens"),
    ({"dtype": "float8"}, "dtype 'float8' is unknown"),
    ({"init": "gaussian", "share": float("inf")}, "share is inf: give a finite number"),
    ({"init": "random", "sigma": float("nan")}, "sigma is nan: give a finite number"),
])  # fmt: skip
def test_bad_input_leaves_nothing_behind(tiny_lm, tmp_path, change, message):
    source = tiny_lm()
    with pytest.raises(InputError, match=message):
        extend_checkpoint(source, tmp_path / "place" / "out", **{"tokens": CODES, **change})
    assert not list((tmp_path / "place").glob("*")) if (tmp_path / "place").exists() else True


def test_levels_come_from_the_letter():
    assert levels_of(["<a_7>", "<|b_0|>", "<c_12>", "<item_9>"]) == [1, 2, 3, 1]


@pytest.mark.parametrize("name, kind, size", [("Llama", "bpe", 300), ("Llama", "unigram", 290), ("GPTSw3", "bpe", 300)])
def test_sentencepiece_tokenizers_cut_codes_as_intended(tmp_path, name, kind, size):
    import sentencepiece

    from tests.conftest import TEXT

    (tmp_path / "text").write_text("\n".join(TEXT * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=size, model_type=kind,
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{name}Tokenizer"}}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)  # from tokenizer.model, the only file with pieces
    assert tokenizer.is_fast == (name == "Llama")
    assert len(tokenizer) >= size
    plain = copy.deepcopy(tokenizer)
    ids = extend(_llama(len(tokenizer)), tokenizer, CODES)
    lamp = plain("a lamp", add_special_tokens=False)["input_ids"]
    for text, expected in (("<a_1><b_2>", [ids[1], ids[7]]), ("a lamp<a_0><b_4>", [*lamp, ids[0], ids[9]])):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
    assert tokenizer("a lamp", add_special_tokens=False)["input_ids"] == lamp
    assert plain.decode(lamp) == "a lamp"


def _llama(rows):
    from tests.conftest import tiny_config

    return AutoModelForCausalLM.from_config(tiny_config("llama", rows, True))


def test_many_tokens_are_added_in_bulk(tiny_lm):
    model, tokenizer = load_language_model(tiny_lm())
    ids = extend(model, tokenizer, [f"<a_{i}>" for i in range(3000)])
    assert tokenizer("<a_2999><a_0>")["input_ids"] == [ids[-1], ids[0]]
