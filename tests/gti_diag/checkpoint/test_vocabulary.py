"""Token strings from the files that tokenizers write."""

import base64
import copy
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.readable import display
from tests.conftest import TEXT


@pytest.fixture
def folder(tmp_path):
    save_file({"model.embed_tokens.weight": torch.rand(300, 4)}, tmp_path / "model.safetensors")
    return tmp_path


def vocabulary(folder):
    return open_checkpoint(folder).vocabulary


def test_byte_level_vocab_and_merges(folder, tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    found = vocabulary(folder)
    assert found.source == "vocab.json"
    assert {token: id for id, token in enumerate(found.tokens)} == tiny_tokenizer.get_vocab()
    shown = display(found, found.size)
    texts = tiny_tokenizer.batch_decode([[id] for id in range(3, found.size)])
    assert shown[3:] == texts


def test_wordpiece_vocab(folder):
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXT, vocab_size=200)
    tokenizer.save_model(str(folder))  # vocab.txt
    found = vocabulary(folder)
    assert found.tokens == tuple(tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size()))
    assert "##" in "".join(display(found, found.size))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_model(folder, kind):
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=60, model_type=kind,
        minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    (folder / "added_tokens.json").write_text(json.dumps({"<a_0>": 60, "<a_1>": 61}))
    found = vocabulary(folder)
    assert found.tokens == (*(model.id_to_piece(id) for id in range(60)), "<a_0>", "<a_1>")
    assert found.added == {60: "<a_0>", 61: "<a_1>"}
    assert not any("▁" in token for token in display(found, 62))
    (folder / "tokenizer.model").write_bytes(b"junk")
    assert "tokenizer.model: is not a tokenizer file of a known form" in open_checkpoint(folder).notes[0]


def test_unigram_tokenizer_json(folder):
    from tokenizers import SentencePieceUnigramTokenizer

    tokenizer = SentencePieceUnigramTokenizer()
    tokenizer.train_from_iterator(TEXT, vocab_size=80, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.save(str(folder / "tokenizer.json"))
    found = vocabulary(folder)
    assert found.tokens == tuple(tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size()))
    assert found.special == {tokenizer.token_to_id("<unk>")}


@pytest.mark.parametrize("file", ["tokenizer.model", "qwen.tiktoken"])
def test_tiktoken_ranks(folder, file):
    words = [b"a", b" the", "é".encode(), b"\xff"]
    lines = [base64.b64encode(word) + b" " + str(rank).encode() for rank, word in enumerate(words)]
    (folder / file).write_bytes(b"\n".join(lines) + b"\n")
    assert vocabulary(folder).tokens == ("a", " the", "é", "�")


def test_tekken(folder):
    """Laid out as Mistral's tekken.json: special tokens first, then ranked bytes."""
    pieces = [{"rank": n, "token_bytes": base64.b64encode(t.encode()).decode()} for n, t in enumerate(["x", " y", "z"])]
    specials = [{"rank": 0, "token_str": "<unk>", "is_control": True}]
    config = {"default_vocab_size": 5, "default_num_special_tokens": 2}
    (folder / "tekken.json").write_text(json.dumps({"config": config, "vocab": pieces, "special_tokens": specials}))
    assert vocabulary(folder).tokens == ("<unk>", "<SPECIAL_1>", "x", " y", "z")


def test_added_and_special_tokens_come_from_every_file(folder):
    (folder / "vocab.txt").write_text("a\nb\n[SEP]\n")
    decoder = {"3": {"content": "<x>", "special": True}, "4": {"content": "<y>", "special": False}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder, "sep_token": "[SEP]"}))
    (folder / "added_tokens.json").write_text(json.dumps({"<z>": 6}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": [{"content": "b"}]}))
    found = vocabulary(folder)
    assert found.tokens == ("a", "b", "[SEP]", "<x>", "<y>", None, "<z>")
    assert found.special == {1, 2, 3}
    assert set(found.added) == {3, 4, 6}


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("vocab.json", '{"a": "x"}', "token id 'x' is not a whole number"),
        ("vocab.json", '{"a": -1}', "has token ids from -1 to -1"),
        ("vocab.json", '{"a": 99999999999}', "has token ids from 99999999999"),
        ("tokenizer.json", "[", "is not usable JSON"),
        ("vocab.json", '{"a": 0, "b": 1, "a": 2}', "key 'a' twice"),
        ("vocab.json", '{"a": 0, "b": 0}', "tokens 'a' and 'b' have one id, 0"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": 0}}}', "tokens 'a' and 'b' have one id, 0"),
        ("added_tokens.json", '{"a": 1.5}', "token id 1.5 is not a whole number"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"content": 3}}}', "added token 3 is not a string"),
        ("tekken.json", "{}", "not a tokenizer file"),
    ],
)
def test_a_tokenizer_file_that_cannot_be_read_costs_the_names_alone(folder, file, text, message):
    (folder / file).write_text(text)
    found = open_checkpoint(folder)
    assert found.vocabulary is None and found.matrices["input"].shape == (300, 4)
    [note] = [note for note in found.notes if message in note]
    assert file in note and note.endswith("its tokens are not known")


def test_the_next_file_is_read_where_one_cannot_be(folder):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "vocab.txt").write_text("a\nb\n")
    (folder / "added_tokens.json").write_text('{"<x>": 2.5}')
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"2": {"content": "<y>"}}}')
    found = open_checkpoint(folder)
    assert found.vocabulary.tokens == ("a", "b", "<y>")
    assert [note.split(": ")[0].rsplit("/", 1)[1] for note in found.notes] == ["tokenizer.json", "added_tokens.json"]


def test_a_whole_tokenizer_under_another_name(folder, tiny_tokenizer):
    """As XTTS ships it: the JSON of a whole tokenizer, called vocab.json."""
    tiny_tokenizer = copy.deepcopy(tiny_tokenizer)
    tiny_tokenizer.add_tokens(["<a_0>"])
    tiny_tokenizer.backend_tokenizer.save(str(folder / "vocab.json"))
    found = open_checkpoint(folder)
    assert found.notes == ()
    assert {token: id for id, token in enumerate(found.vocabulary.tokens)} == tiny_tokenizer.get_vocab()
    assert "<a_0>" in found.vocabulary.added.values()
    (folder / "vocab.json").rename(folder / "bpe_tokenizer.json")
    assert open_checkpoint(folder).vocabulary.tokens == found.vocabulary.tokens


def test_a_folder_one_may_not_list(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        open_checkpoint(folder)


def test_a_file_one_may_not_read(folder, monkeypatch):
    import builtins

    real = builtins.open

    def refuse(path, *args, **options):
        if str(path).endswith(".safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read \(Permission denied\)"):
        open_checkpoint(folder)
