"""Token groups: which rule fires, on tokens of the styles in use, and what stays out of text."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.codes import code_like, shipped
from gti_diag.tokens.groups import partition
from gti_diag.tokens.readable import display

CODES = [f"<{level}_{code}>" for level in "abc" for code in range(8)]


def test_auto_takes_added_codes_with_their_levels(tiny_lm, tiny_tokenizer):
    found = partition(open_checkpoint(tiny_lm(new_tokens=CODES)))
    new, first = found.groups["new"], len(tiny_tokenizer)
    assert new.tokens == tuple(CODES)
    assert new.ids.tolist() == list(range(first, first + 24))
    assert new.levels.tolist() == [1] * 8 + [2] * 8 + [3] * 8
    assert "24 added tokens look like codes (<a_0> … <c_7>" in found.rule
    assert found.groups["reserved"].tokens == ("<unk>", "<s>", "</s>")


def test_groups_are_disjoint_and_cover(tiny_lm):
    checkpoint = open_checkpoint(tiny_lm(new_tokens=CODES))
    ids = torch.cat([group.ids for group in partition(checkpoint).groups.values()])
    assert sorted(ids.tolist()) == list(range(checkpoint.matrices["input"].shape[0]))


def test_the_sidecar_goes_first_and_keeps_its_order(tiny_lm):
    folder = tiny_lm(new_tokens=CODES)
    tokens = open_checkpoint(folder).vocabulary.tokens
    listed = {"schema": 1, "new_tokens": [tokens[9], tokens[4]], "ids": [9, 4], "levels": [2, 1]}
    (folder / "gti.json").write_text(json.dumps(listed))
    found = partition(open_checkpoint(folder))
    assert (found.groups["new"].ids.tolist(), found.groups["new"].levels.tolist()) == ([9, 4], [2, 1])
    assert found.rule == "gti.json lists 2 new tokens"


def test_what_the_base_lacks_comes_before_the_pattern(tiny_lm):
    base, folder = tiny_lm("base"), tiny_lm("new", new_tokens=[*CODES, "bonjour", "merci"])
    found = partition(open_checkpoint(folder), base=open_checkpoint(base))
    assert found.groups["new"].tokens == tuple(CODES)
    assert found.groups["other added"].tokens == ("bonjour", "merci")
    assert found.rule.startswith("26 tokens that the base")
    assert found.rule.endswith("lacks; 24 of them look like codes (<a_0> … <c_7>)")
    assert found.groups["new"].levels.tolist() == [1] * 8 + [2] * 8 + [3] * 8


def test_words_that_the_base_lacks_stay_together(tiny_lm):
    base, folder = tiny_lm("base"), tiny_lm("new", new_tokens=["bonjour", "merci"])
    found = partition(open_checkpoint(folder), base=open_checkpoint(base))
    assert found.groups["new"].tokens == ("bonjour", "merci")


def test_rows_beyond_the_base_need_no_token(tiny_lm, tiny_tokenizer):
    base, folder = tiny_lm("base"), tiny_lm("new", rows=len(tiny_tokenizer) + 5)
    found = partition(open_checkpoint(folder), base=open_checkpoint(base))
    assert found.groups["new"].count == 5
    assert "5 rows beyond" in found.rule


def test_no_new_tokens_is_said(tiny_lm):
    found = partition(open_checkpoint(tiny_lm()))
    assert set(found.groups) == {"text", "reserved"}
    assert found.rule.startswith("no new tokens: no gti.json, no added token")


def test_rows_that_no_padding_explains_are_new(tiny_lm, tiny_tokenizer):
    found = partition(open_checkpoint(tiny_lm(rows=len(tiny_tokenizer) + 13)))
    assert found.groups["new"].ids.tolist() == list(range(len(tiny_tokenizer), len(tiny_tokenizer) + 13))
    assert "13 rows beyond the tokenizer's 400 ids, and 413 is no padded size" in found.rule


def test_a_handful_of_added_tokens_is_new(tiny_lm):
    found = partition(open_checkpoint(tiny_lm(new_tokens=["<|im_start|>", "<fancy>", "zebra", "<think>"])))
    assert found.groups["new"].tokens == ("<fancy>", "zebra")
    assert "2 added tokens end the vocabulary (<fancy> … zebra) that are not in the list of known tokens" in found.rule
    assert found.notes[0] == "added tokens that count as text: 2 (<|im_start|>, <think>); choose with --new"


USERS = (
    "<user_id> <|action_buy|> <item> <rating> <history> <refund> <text_summary> <image_item> <action> <text> <call_api> <user>"
    " <ITEM> <SEP_ITEM> <rec> <|item_token|> <start_of_item> <file> <name> image text sid_item"
)
SHIPPED = (
    "<|im_start|> <|im_end|> <|endoftext|> <|0.00|> <|29.98|> <|en|> <|notimestamps|> <|startoftranscript|> <|startofprev|>"
    " <｜place▁holder▁no▁3｜> <｜User｜> <｜tool▁sep｜> <｜tool▁calls▁begin｜> <｜tool▁outputs▁end｜> <｜end▁of▁sentence｜> <｜fim▁hole｜>"
    " eng_Latn en_XX __af__ >>UNUSED_12<< >>TITLE<< <|EXTRA_0_TOKEN|> <|START_OF_TURN_TOKEN|> <BOS_TOKEN> <pr_review_state> <pr>"
    " <|eot_id|> <|start_header_id|> <|python_tag|> <|finetune_right_pad_id|> <|reserved_special_token_7|> <start_of_turn> [INST]"
    " [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [IMG_BREAK] <tool_call> </tool_call> <think> </think> <|vision_start|> <|image_pad|>"
    " <|object_ref_end|> <|box_start|> <|quad_end|> <|fim_prefix|> <|repo_name|> <|file_sep|> <repo_name> <file_sep> <gh_stars>"
    " <issue_start> <jupyter_code> <empty_output> <commit_msg> <|user|> <|observation|> [gMASK] <sop> <|channel|> <|message|> <image>"
    " <|audio_bos|> <EMAIL> <row_1_col_2> <img> </ref> <unused5> [unused5] <extra_id_9> <<SYS>> <|action_start|> <image_soft_token>"
)


def test_tokens_of_a_user_are_told_from_those_that_tokenizers_ship():
    assert [token for token in USERS.split() if shipped(token)] == []
    assert [token for token in (*SHIPPED.split(), "     ", "<|visual token 000031|>") if not shipped(token)] == []


def test_added_tokens_that_resemble_shipped_ones_are_new(tiny_lm):
    found = partition(open_checkpoint(tiny_lm(new_tokens=["<user>", "<refund>", "<image>"])))
    assert found.groups["new"].tokens == ("<user>", "<refund>")
    assert "count as text: 1 (<image>)" in found.notes[0]


def test_text_of_one_row_stays_text(tiny_lm, tiny_tokenizer):
    folder = tiny_lm(new_tokens=CODES)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][: len(tiny_tokenizer)] = 0.25
    save_file(tensors, folder / "model.safetensors")
    found = partition(open_checkpoint(folder))
    assert found.groups["text"].count == len(tiny_tokenizer) - 3
    assert "every text row is identical to another" in " ".join(found.notes)


def test_several_groups_at_once(tiny_lm):
    users = [f"<|user_{code}|>" for code in range(5)]
    found = partition(open_checkpoint(tiny_lm(new_tokens=[*CODES, *users, "<fancy>"])))
    assert {name: group.count for name, group in found.groups.items()} == {
        "text": 397, "new": 24, "user codes": 5, "other added": 1, "reserved": 3,
    }  # fmt: skip
    assert found.groups["user codes"].families == ("user",) * 5
    assert "5 more look like user codes" in found.rule


def test_codes_that_no_file_lists_as_added_are_found(tmp_path):
    words = ["the", "a", *(f"[C{level}_{code}]" for level in (1, 2) for code in range(9))]
    save_file({"model.embed_tokens.weight": torch.rand(20, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    found = partition(open_checkpoint(tmp_path))
    assert found.groups["new"].levels.tolist() == [1] * 9 + [2] * 9
    assert "18 vocabulary tokens look like codes" in found.rule


def test_a_tokenizer_larger_than_the_matrix_is_told(tiny_lm):
    found = partition(open_checkpoint(tiny_lm(new_tokens=CODES, rows=412)))
    assert found.groups["new"].count == 12
    assert found.alarms[0].text.startswith("12 tokens have no row in model.embed_tokens.weight (412 rows): <b_4>")


@pytest.mark.parametrize(
    "selector, tokens",
    [("<b_", CODES[8:16]), (r"^<[ac]_[01]>$", [CODES[0], CODES[1], CODES[16], CODES[17]])],
)
def test_a_regular_expression_selects_token_strings(tiny_lm, selector, tokens):
    assert partition(open_checkpoint(tiny_lm(new_tokens=CODES)), new=selector).groups["new"].tokens == tuple(tokens)


def test_ranges_and_lists_select_in_their_order(tiny_lm, tmp_path):
    checkpoint = open_checkpoint(tiny_lm(new_tokens=CODES))
    assert partition(checkpoint, new="7:9,3").groups["new"].ids.tolist() == [7, 8, 3]
    (tmp_path / "list.txt").write_text("<b_3>\n<a_0>\n the\n")
    assert partition(checkpoint, new=f"@{tmp_path / 'list.txt'}").groups["new"].tokens == ("<b_3>", "<a_0>", " the")


@pytest.mark.parametrize(
    "selector, message",
    [
        ("zzz", "matches none of the"),
        ("(", "not a regular expression"),
        ("5:99999", "5:99999 is not a range of rows"),
        ("9:9", "9:9 is not a range of rows"),
        ("@absent.txt", "cannot be read"),
        ("@{list}", "'nothing like it', which is no token"),
    ],
)
def test_a_selector_that_selects_nothing_is_refused(tiny_lm, tmp_path, selector, message):
    (tmp_path / "list.txt").write_text("<a_0>\nnothing like it\n")
    with pytest.raises(InputError, match=message):
        partition(open_checkpoint(tiny_lm(new_tokens=CODES)), new=selector.format(list=tmp_path / "list.txt"))


def test_a_pattern_needs_strings(tmp_path):
    save_file({"model.embed_tokens.weight": torch.rand(30, 4)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(InputError, match="has no tokenizer file that can be read; select by id ranges"):
        partition(checkpoint, new="a")
    found = partition(checkpoint, new="2:4")
    assert found.groups["new"].tokens == ("#2", "#3")


@pytest.mark.parametrize(
    "tokens, families, levels",
    [
        (["<a_1>", "<b_7>"], ["codes"] * 2, ["a", "b"]),
        (["<|sid_3|>", "<|sid_40|>"], ["sid"] * 2, [None] * 2),
        (["<|item_5|>", "<item_9>"], ["item"] * 2, [None] * 2),
        (["[C1_24]", "[C2_0]"], ["C"] * 2, ["1", "2"]),
        (["<sid_0_255>", "<sid_2_1>"], ["sid"] * 2, ["0", "2"]),
        (["<s_a_7>", "<s_b_7>"], ["s"] * 2, ["a", "b"]),
        (["<extra_id_4>", "<unused_3>", "<|reserved_special_token_7|>", "<0x0A>", "[unused5]", "<a_1>"], [], []),
    ],
)
def test_styles_in_use_are_read(tokens, families, levels):
    found = code_like(dict(enumerate(tokens)))
    assert [found[key] for key in sorted(found)] == list(zip(families, levels, strict=True))


def test_padding_and_copies_stay_out_of_text(tiny_lm, tiny_tokenizer):
    folder = tiny_lm(rows=len(tiny_tokenizer) + 16)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][[40, 50]] = 0.25
    save_file(tensors, folder / "model.safetensors")
    found = partition(open_checkpoint(folder))
    assert found.groups["reserved"].ids.tolist() == [
        0,
        1,
        2,
        40,
        50,
        *range(len(tiny_tokenizer), len(tiny_tokenizer) + 16),
    ]
    assert "16 rows without a token (padding), 3 special tokens, 2 rows identical to another" in found.notes[-1]


def test_rows_of_the_norm_of_unused_rows_are_never_trained(tiny_lm, tiny_tokenizer):
    folder = tiny_lm(rows=len(tiny_tokenizer) + 16)
    tensors = load_file(folder / "model.safetensors")
    weight = tensors["model.embed_tokens.weight"]
    never = [33, 77, *range(len(tiny_tokenizer), len(weight))]
    weight[never] = torch.nn.functional.normalize(weight[never]) * 3.0
    save_file(tensors, folder / "model.safetensors")
    found = partition(open_checkpoint(folder))
    assert {33, 77} <= set(found.groups["reserved"].ids.tolist())
    assert "2 rows of the norm that unused rows share" in found.notes[-1]
    assert {33, 77} <= set(partition(open_checkpoint(folder), scan=False).groups["text"].ids.tolist())


def test_display_is_readable(tiny_lm):
    checkpoint = open_checkpoint(tiny_lm(new_tokens=CODES))
    shown = display(checkpoint.vocabulary, checkpoint.matrices["input"].shape[0] + 1)
    assert " the" in shown
    assert shown[-1].startswith("#")
    assert not any("Ġ" in token for token in shown)
