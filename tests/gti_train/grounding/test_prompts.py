"""Every item is asked about in six ways, answers are codes or text, and nothing leaks into its own question."""

from collections import Counter

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Item
from gti_train.grounding.prompts import KINDS, PHRASINGS, grounding_examples, hold_out
from gti_train.semantic_ids.ids import SemanticIds

CATALOGUE = Catalogue(
    (
        Item("p", "Oak {desk}", "A desk of oak. It stands firm."),
        Item("q", "Lamp", "It glows in the evening, warm and low."),
        Item("r", "Bare"),
    )
)
SIDS = SemanticIds(("p", "q", "r"), torch.tensor([[0, 1], [1, 0], [1, 1]]), (torch.zeros(2, 2), torch.zeros(2, 2)))


def test_one_example_per_item_and_kind():
    counts = Counter((example.item_id, example.kind) for example in grounding_examples(CATALOGUE, SIDS))
    assert set(counts.values()) == {1}
    assert {kind for item, kind in counts if item == "p"} == set(KINDS)
    assert {kind for item, kind in counts if item == "r"} == {k for k in KINDS if "title" in k}


def test_answers_are_the_codes_or_the_text():
    by_kind = {e.kind: e for e in grounding_examples(CATALOGUE, SIDS) if e.item_id == "p"}
    assert {by_kind[kind].answer for kind in KINDS[:3]} == {"<a_0><b_1>"}
    assert by_kind["code-to-title"].answer == "Oak {desk}"
    assert by_kind["code-to-description"].answer == "A desk of oak. It stands firm."
    assert by_kind["code-to-both"].answer == "Oak {desk}\nA desk of oak. It stands firm."


def test_the_question_holds_its_side_and_never_the_answer():
    for seed in range(20):
        for example in grounding_examples(CATALOGUE, SIDS, seed=seed):
            item = next(item for item in CATALOGUE.items if item.id == example.item_id)
            asks, wants = example.kind.split("-to-")
            assert ("<a_" in example.prompt) == (asks == "code")
            assert (item.title in example.prompt) == (asks in ("title", "both"))
            if item.description:
                assert (item.description in example.prompt) == (asks in ("description", "both"))
            assert ("<a_" in example.answer) == (wants == "code")


def test_all_phrasings_occur_and_a_seed_fixes_them():
    items = tuple(Item(f"i{n}", f"Title {n}", f"Text {n}.") for n in range(200))
    codes = torch.zeros(200, 1, dtype=torch.long)
    sids = SemanticIds(tuple(item.id for item in items), codes, (torch.zeros(2, 2),))
    examples = grounding_examples(Catalogue(items), sids, seed=1)
    assert examples == grounding_examples(Catalogue(items), sids, seed=1)
    assert examples != grounding_examples(Catalogue(items), sids, seed=2)
    fixed = {p.format(title="", description="", code="") for ps in PHRASINGS.values() for p in ps}
    stripped = set()
    for example in examples:
        number = example.item_id[1:]
        text = example.prompt.replace(f"Title {number}", "").replace(f"Text {number}.", "").replace("<a_0>", "")
        stripped.add(text)
    assert stripped == fixed


def test_long_descriptions_are_cut_to_words():
    item = Item("p", "T", " ".join(f"w{n}" for n in range(100)))
    examples = grounding_examples(Catalogue((item,)), SIDS, kinds=["code-to-description"], words=7)
    assert examples[0].answer == "w0 w1 w2 w3 w4 w5 w6"
    whole = grounding_examples(Catalogue((item,)), SIDS, kinds=["code-to-description"], words=None)
    assert whole[0].answer == item.description


def test_unknown_kinds_and_items_are_refused():
    with pytest.raises(ValueError, match="choose one or more of title-to-code"):
        grounding_examples(CATALOGUE, SIDS, kinds=["code-to-poem"])
    with pytest.raises(ValueError, match="choose one or more"):
        grounding_examples(CATALOGUE, SIDS, kinds=[])
    with pytest.raises(ValueError, match="'s' has no semantic ID"):
        grounding_examples(Catalogue((Item("s", "Stranger"),)), SIDS)


def test_items_are_held_out_only_while_their_codes_stay():
    items = tuple(Item(f"i{n}", f"Item {n}", "text") for n in range(40))
    codes = torch.tensor([[n % 3, n % 5] for n in range(39)] + [[3, 0]])  # the last one alone has <a_3>
    sids = SemanticIds(tuple(item.id for item in items), codes, (torch.zeros(4, 2), torch.zeros(5, 2)))
    kept, held = hold_out(Catalogue(items), sids, share=0.5, seed=1)
    assert len(held.items) == 20 and {item.id for item in (*kept.items, *held.items)} == set(sids.item_ids)
    assert {code for item in kept.items for code in sids.of(item.id)} == {c for i in items for c in sids.of(i.id)}
    assert hold_out(Catalogue(items), sids, share=0.5, seed=1) == (kept, held)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        hold_out(Catalogue(items), sids, share=1.0)
    with pytest.raises(InputError, match="each has a code that no other item has"):
        hold_out(Catalogue(items[-1:]), SemanticIds(("i39",), codes[-1:], sids.codebooks), share=0.5)
