"""What the sizes say: tokens without a row, a head that is too short, rows that were lost or never trained."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

WORDS = [f"w{n}" for n in range(20)]


@pytest.fixture
def made(tmp_path):
    """A checkpoint folder of given rows, words, added tokens, and rows of a head (none: no head)."""

    def make(name, rows, *, words=20, added=(), head=None, special=()):
        folder = tmp_path / name
        folder.mkdir()
        values = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
        tensors = {"model.embed_tokens.weight": values[:rows].clone()}
        if head is not None:
            tensors["lm_head.weight"] = values[:head] + 1
        save_file(tensors, folder / "model.safetensors")
        (folder / "vocab.json").write_text(json.dumps({word: id for id, word in enumerate(WORDS[:words])}))
        (folder / "added_tokens.json").write_text(json.dumps({t: words + n for n, t in enumerate(added)}))
        (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": list(special)}))
        return open_checkpoint(folder)

    return make


def alarms(*arguments, **options):
    return [(alarm.kind, alarm.text, alarm.fails) for alarm in partition(*arguments, **options).alarms]


def test_tokens_without_a_row_are_named_and_fail(made):
    base, found = made("base", 20), made("ours", 20, added=["<a_0>", "a b", "<a_1>"])
    expected = "3 tokens have no row in model.embed_tokens.weight (20 rows): <a_0>, a b, <a_1>"
    assert alarms(found, base=base) == [("tokens without a row", expected, True)]
    assert "no row that the base" in partition(found, base=base).rule
    with pytest.raises(InputError, match=r"matches 2 tokens that have no row .*: <a_0>, <a_1>; resize the embedding"):
        partition(found, new="^<a_")


def test_a_listed_token_without_a_row_is_told(made, tmp_path):
    (tmp_path / "new.txt").write_text("<a_0>\n")
    with pytest.raises(InputError, match=r"lists '<a_0>', which has no row in"):
        partition(made("ours", 20, added=["<a_0>"]), new=f"@{tmp_path / 'new.txt'}")


def test_new_tokens_without_a_row_in_the_head_are_counted(made):
    found = made("ours", 22, added=["<a_0>", "<a_1>"], head=20)
    expected = "2 new tokens have no row in lm_head (20 rows): only the input matrix is judged"
    assert alarms(found) == [("tokens without a row in the head", expected, False)]


def test_padding_that_the_head_lacks_is_no_alarm(made):
    assert alarms(made("ours", 24, head=20)) == []


def test_rows_that_the_base_has_and_this_lacks(made):
    base = made("base", 32)
    [(kind, text, fails)] = alarms(made("padding", 24), base=base)
    assert (kind, fails) == ("rows of the base lost", False)
    assert "has 24 rows, that of the base" in text and text.endswith("32: 8 are gone, none of them with a token")
    [(kind, text, fails)] = alarms(made("words", 15, words=15), base=base)
    assert (kind, fails) == ("rows of the base lost", True)
    assert text.endswith("17 are gone, 5 tokens of the base among them (w15, w16, w17, w18, w19)")


def test_new_rows_that_are_the_padding_of_the_base(made, tmp_path):
    base = made("base", 32)
    found = made("ours", 32, added=["<a_0>", "<a_1>"])
    [(kind, text, fails)] = alarms(found, base=base)
    assert (kind, fails) == ("rows of the base's padding", True)
    assert text.startswith("2 of 2 new rows equal the padding of the base")
    assert alarms(found, base=base, scan=False) == []


def test_trained_rows_in_the_padding_of_the_base_are_no_alarm(made, tmp_path):
    base = made("base", 32)
    made("ours", 32, added=["<a_0>", "<a_1>"])
    rows = base.matrices["input"].rows()
    rows[20:22] += 1
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "ours" / "model.safetensors")
    assert alarms(open_checkpoint(tmp_path / "ours"), base=base) == []


def test_well_known_tokens_at_the_end_are_named(made):
    chat = ["<|im_start|>", "<|im_end|>"]
    found = partition(made("ours", 22, added=chat, special=chat))
    assert "new" not in found.groups
    expected = (
        "added at the end, taken as a model's own special tokens and not as new: <|im_start|>, <|im_end|>; if they"
    )
    assert any(note.startswith(expected) for note in found.notes)
    assert (
        partition(made("two", 22, added=["<|im_start|>", "<|im_end|>"]), base=made("base", 20)).groups["new"].count == 2
    )


def test_an_added_line_break_stays_within_its_note(made):
    found = partition(made("ours", 23, added=["\n", "<|im_end|>", "zebra"]), new="zebra|im_end")
    assert all("\n" not in note for note in (found.rule, *found.notes))
    found = partition(made("two", 22, added=["\n", "x\ty"]))
    assert all("\n" not in note for note in (found.rule, *found.notes))


def test_a_small_group_is_shown_once(made):
    from gti_diag.checkpoint.inspect import describe

    checkpoint = made("ours", 25, added=[f"<a_{n}>" for n in range(5)])
    group = describe(checkpoint, partition(checkpoint))["tokens"]["groups"]["new"]
    assert (group["first"], group["last"]) == ([f"<a_{n}>" for n in range(5)], [])
