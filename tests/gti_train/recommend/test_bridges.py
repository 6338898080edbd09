"""`transformers.generate` finds the same items by the same tree, and JSON holds what the tree holds."""

import json

import pytest
import torch
from transformers import GenerationConfig

from gti_train.recommend.bridges import TrieLogitsProcessor, comma_keys, prefix_allowed_tokens_fn
from gti_train.recommend.decoding import decode

from .decoding_cases import CODES, ITEMS, PROMPTS, TOKENS, tiny, tree

K = 12
SEPARATE = CODES.unique(dim=0)  # generate returns sequences of codes, not items
CONFIG = GenerationConfig(num_beams=K, num_return_sequences=K, max_new_tokens=3, length_penalty=0.0, do_sample=False,
                          pad_token_id=2, eos_token_id=2, return_dict_in_generate=True, output_scores=True)  # fmt: skip


@pytest.mark.parametrize("scores", ["items", "vocabulary"])
def test_generate_behind_the_processor_finds_what_decode_finds(scores):
    model, prompt = tiny(), PROMPTS[2]
    processor = TrieLogitsProcessor(tree(SEPARATE), prompt_length=len(prompt), end=2, among_items=scores == "items")
    agrees(model, prompt, scores, logits_processor=[processor])


def test_generate_behind_the_callback_finds_what_decode_finds():
    model, prompt = tiny(), PROMPTS[2]
    callback = prefix_allowed_tokens_fn(tree(SEPARATE), prompt_length=len(prompt), end=2)
    agrees(model, prompt, "vocabulary", prefix_allowed_tokens_fn=callback)


def agrees(model, prompt, scores, **constraint):
    found = model.generate(torch.tensor([prompt]), generation_config=CONFIG, **constraint)
    items, expected = decode(model, tree(SEPARATE), [prompt], K, scores=scores)
    written = [tokens[SEPARATE[items[0], level]] for level, tokens in enumerate(TOKENS)]
    assert torch.equal(found.sequences[:, len(prompt) :], torch.stack(written, 1))
    torch.testing.assert_close(found.sequences_scores, expected[0], rtol=0, atol=1e-4)


def test_both_bridges_allow_the_same_tokens_beside_and_behind_the_tree_too():
    trie = tree()
    rows = torch.randint(198, 228, (200, 4), generator=torch.Generator().manual_seed(0))
    rows[:ITEMS, :3] = torch.stack([tokens[CODES[:, level]] for level, tokens in enumerate(TOKENS)], 1)
    prefixes = {tuple(row[:depth]) for row in CODES.tolist() for depth in range(4)}
    for depth in range(5):
        processor = TrieLogitsProcessor(trie, prompt_length=2, end=2)
        callback = prefix_allowed_tokens_fn(trie, prompt_length=2, end=2)
        ids = torch.cat([torch.tensor([[5, 6]]).expand(200, -1), rows[:, :depth]], 1)
        kept = processor(ids, torch.zeros(200, 300)).isfinite()
        for row, mask in zip(ids, kept, strict=True):
            codes = [int(token) - int(tokens[0]) for token, tokens in zip(row[2:], TOKENS, strict=False)]
            inside = depth < 3 and tuple(codes) in prefixes
            children = {c[depth] for c in map(list, prefixes) if len(c) == depth + 1 and c[:depth] == codes}
            expected = sorted(int(TOKENS[depth][code]) for code in children) if inside else [2]
            assert mask.nonzero()[:, 0].tolist() == sorted(callback(0, row)) == expected


def test_comma_keys_name_every_item_under_its_codes():
    found = json.loads(json.dumps(comma_keys(tree(), [f"item {i}" for i in range(ITEMS)])))
    expected = {}
    for item, row in enumerate(CODES.tolist()):
        expected.setdefault(",".join(map(str, row)), []).append(f"item {item}")
    assert found == expected
