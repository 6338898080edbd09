"""The scan of all rows: every kind of damage that is planted is found, where it is and nowhere else."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import gti_diag
from gti_diag.analysis import scan_findings
from gti_diag.analysis.scan import failing, parse_kinds, scan
from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def damaged(tiny_lm):
    """Factory: a tiny checkpoint whose matrices `spoil(input, head)` writes to."""

    def make(spoil=lambda entry, head: None, **options):
        folder = tiny_lm(tied=False, **options)
        tensors = load_file(folder / "model.safetensors")
        spoil(tensors[EMBEDDING], tensors[HEAD])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def kinds(document, role="input"):
    return {finding["kind"]: finding["ids"] for finding in document["matrices"][role]["findings"]}


def one_of_each(entry, head):
    entry[10] = torch.nan
    entry[20] = 0
    entry[30] *= 1e-9
    entry[40] *= 300
    entry[50] = entry[51]
    entry[60] = entry[61]
    entry[60, :20] *= 1 + torch.finfo(entry.dtype).eps


def test_a_sound_checkpoint_has_no_findings(damaged):
    found = scan(damaged())
    assert [matrix["findings"] for matrix in found["matrices"].values()] == [[], []]
    assert found["schema"] == 1 and found["matrices"]["input"]["rows"] == found["matrices"]["input"]["shape"][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_row_of_each_kind_is_found(damaged, dtype):
    found = scan(damaged(one_of_each, dtype=dtype))
    expected = {
        "not_finite": [10], "zero": [20], "near_zero": [30], "giant": [40], "copies": [50, 51], "cluster": [60, 61],
        "input_head_disagree": [10, 20, 30],
    }  # fmt: skip
    if dtype == torch.float16:  # 1e-9 of a row is below what it can hold
        expected |= {"zero": [20, 30]}
        del expected["near_zero"]
    assert kinds(found) == expected and kinds(found, "output") == {}


def test_copies_are_of_value_and_not_of_sum(damaged):
    """Two signs flipped leave the sum of a row's words modulo 2⁶⁴ as it was; −0 is 0."""

    def spoil(entry, head):
        entry[50] = entry[51]
        entry[50, [1, 3]] *= -1
        entry[60] = entry[61]
        entry[60, 7], entry[61, 7] = 0.0, -0.0

    assert kinds(scan(damaged(spoil, dtype=torch.float32))) == {"copies": [60, 61]}


@pytest.mark.parametrize("size", [2, 20, 200])
def test_clusters_of_any_size(damaged, size):
    def spoil(entry, head):
        head[100 : 100 + size] = head[100] * (1 + 3e-4 * torch.randn(size, head.shape[1]))

    finding = scan(damaged(spoil))["matrices"]["output"]["findings"][0]
    assert finding["kind"] == "cluster" and finding["groups"] == [list(range(100, 100 + size))]


def test_tokens_are_named_and_marked(damaged):
    folder = damaged(one_of_each, new_tokens=["<|turn|>"])
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    end, word = 2, ids["Ġkettle"] if "Ġkettle" in ids else ids["a"]
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING][[end, word, len(tensors[EMBEDDING]) - 1]] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}<|turn|>{{ messages[0]['content'] }}</s>")
    finding = next(f for f in scan(folder)["matrices"]["input"]["findings"] if f["kind"] == "zero")
    last = finding["ids"][-1]
    assert finding["tokens"][0] == "</s>" and finding["tokens"][-1] == "<|turn|>"
    assert finding["special"] == [end] and finding["chat_template"] == [end, last]
    assert word in finding["reached"] and finding["padding"] == []
    assert all(finding[key] for key in ("evidence", "cause", "action", "verify"))


def test_padding_alone_fails_nothing(damaged):
    found = scan(damaged(lambda entry, head: entry[400:].zero_(), rows=424))
    finding = found["matrices"]["input"]["findings"][0]
    assert finding["kind"] == "zero" and finding["padding"] == finding["ids"]
    assert failing(found, ["zero"]) == []
    assert failing(scan(damaged(one_of_each)), ["zero"])[0][1]["ids"] == [20]


def test_rows_like_unused_ones_are_found(damaged):
    names = [f"<|reserved_special_token_{n}|>" for n in range(20)]

    def spoil(entry, head):
        common = head.mean(0) - 3 * head.std()
        head[-20:] = common + 0.02 * head.std() * torch.randn(20, head.shape[1])
        head[77] = common + 0.02 * head.std() * torch.randn(head.shape[1])

    found = scan(damaged(spoil, new_tokens=names), new="^zzz|a$")
    assert kinds(found, "output") == {"untrained": [77]}
    assert "8 are needed" in scan(damaged())["matrices"]["output"]["undefined"]["untrained"]


def test_a_new_row_that_equals_an_old_one_names_it(damaged):
    def spoil(entry, head):
        entry[-2] = entry[33]

    folder = damaged(spoil, new_tokens=["<a_0>", "<a_1>"])
    finding = next(f for f in scan(folder)["matrices"]["input"]["findings"] if f["kind"] == "copy_of_old")
    new = load_file(folder / "model.safetensors")[EMBEDDING].shape[0] - 2
    assert finding["ids"] == [new] and finding["groups"] == [[new, 33]] and f"{new} = 33" in finding["evidence"]


def test_old_rows_that_moved_are_found_by_token(damaged):
    base = damaged(name="base")

    def spoil(entry, head):
        entry[44] += 0.01

    folder = damaged(spoil, name="extended", new_tokens=["<a_0>", "<a_1>"])
    tensors, before = load_file(folder / "model.safetensors"), load_file(base / "model.safetensors")
    for name in (EMBEDDING, HEAD):
        tensors[name][: len(before[name])] = before[name]
    tensors[EMBEDDING][44] += 0.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = scan(folder, base=base)
    assert kinds(found)["old_row_moved"] == [44] and "old_row_moved" not in kinds(found, "output")
    assert found["checkpoint"]["base"] == str(base)


def test_the_fingerprint_is_that_of_an_analysis(damaged):
    folder = damaged(one_of_each)
    assert scan(folder)["checkpoint"]["fingerprint"] == open_checkpoint(folder).fingerprint
    assert gti_diag.scan(folder) == scan(folder)


def test_kinds_to_fail_on_are_checked():
    assert parse_kinds(" zero, cluster") == ("zero", "cluster") and parse_kinds("any") == scan_findings.KINDS
    with pytest.raises(InputError, match="--fail-on 'zeros': choose some of not_finite, zero"):
        parse_kinds("zero,zeros")


def test_every_kind_has_its_remedy():
    from gti_diag.analysis.remedies import remedies, remedy

    assert set(scan_findings.KINDS) <= set(remedies())
    assert "gti-train repair 'a b'" in remedy("zero", "a b")["action"]


def test_every_label_has_its_remedy_and_no_text_is_left_open():
    import re

    from gti_diag.analysis.remedies import remedies, remedy
    from gti_diag.analysis.verdict import LABELS

    assert {f"verdict.{label}" for label in (*LABELS, "none")} <= set(remedies())
    open_words = {"rule", "count", "rounding", "dtype", "where", "share"}
    for name in remedies():
        told = remedy(name, "ckpt", **dict.fromkeys(open_words, "x"))
        assert all(told.values()) and not re.search(r"[{}]", "".join(told.values())), name


def test_an_analysis_holds_the_scan_in_short(damaged):
    def spoil(entry, head):
        entry[100:140] = entry[100]

    folder = damaged(spoil)
    whole, short = (make(folder)["matrices"]["input"] for make in (scan, gti_diag.diagnose))
    (finding,) = short["scan"]["findings"]
    assert finding["count"] == 40 and len(finding["ids"]) == len(finding["tokens"]) == len(finding["norms"]) == 12
    assert set(finding["reached"]) <= set(finding["ids"]) and short["scan"]["norms"] == whole["norms"]
    assert gti_diag.diagnose(folder, exhibits=False)["matrices"]["input"]["scan"] is None


def test_a_first_look_says_whether_a_scan_is_worth_it(damaged):
    from gti_diag.checkpoint.inspect import first_look

    look = first_look(open_checkpoint(damaged(one_of_each)))
    assert look["zero"] == 1 and look["equal"] == 2 and look["bytes"] == 2 * 400 * 48 * 4
    sound = first_look(open_checkpoint(damaged()))
    assert sound["zero"] == sound["equal"] == 0 and sound["looked_at"] == 800
