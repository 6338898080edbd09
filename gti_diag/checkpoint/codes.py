"""What a token's string says of its kind: a code of some family and level, a placeholder, a usual special token."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

# A code token: brackets, a family name, perhaps a level (digits or one letter), a code. `<a_12>`, `<|sid_3|>`,
# `[C1_24]`, `<sid_0_255>`, `<item_9>`, `<s_a_7>`.
CODE = re.compile(
    r"(?:<\|?|\[|\|)(?P<family>[A-Za-z]+(?:[_-][A-Za-z]+)*?)(?:[_-]?(?P<digits>\d+)|[_-](?P<letter>[A-Za-z]))??"
    r"[_:-](?P<code>\d+)(?:\|?>|\]|\|)"
)
# Placeholders that pretraining vocabularies ship: numbered like codes, but not the user's.
PLACEHOLDER = re.compile(
    r"[<\[|].*(unused|reserved|extra_id|extra|dummy|control|placeholder|special|madeupword|pad|blank|filler|loc|seg|fim)"
    r"[_-]?(?:token)?[_-]?\d+\W*",
    re.IGNORECASE,
)
USUAL_SPECIALS = {
    "<unk>", "<s>", "</s>", "<pad>", "<mask>", "<bos>", "<eos>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]",
    "<|endoftext|>", "<|end_of_text|>",
}  # fmt: skip
# Added tokens that public tokenizers ship for chat, code, tools and media: present before any extension.
SHIPPED = re.compile(
    r"\W*/?(im_|fim|think|tool|vision|image|img|video|audio|box|quad|object_ref|repo|file|gh_|issue|jupyter|commit|empty"
    r"|end|begin|start|eo[tmsd]|python|bos|pad|unk|mask|cls|sep|s\W|user|assistant|system|inst|available|reponame"
    r"|code|diff|function|channel|message|return|constrain|call|header|text|prefix|middle|suffix|step|plugin|interpreter"
    r"|action|translate|transcribe|notimestamps|email|phone|ip_address|nbsp|startoftext|sys|ref|patch|observation).*",
    re.IGNORECASE | re.DOTALL,
)
LEAST_FAMILY = 2  # one lone token is not a code book
LEAST_UNADDED = 16  # a family that no file lists as added must be larger to be believed


def code_like(tokens: Mapping[int, str], *, least: int = LEAST_FAMILY) -> dict[int, tuple[str, str | None]]:
    """Family and level label of every token that is a code of a family of at least `least`."""
    found = {}
    for id, token in tokens.items():
        match = CODE.fullmatch(token)
        if match and not PLACEHOLDER.fullmatch(token):
            found[id] = _family(match)
    sizes = Counter(family for family, _ in found.values())
    return {id: pair for id, pair in found.items() if sizes[pair[0]] >= least}


def _family(match: re.Match[str]) -> tuple[str, str | None]:
    name, level = match["family"], match["digits"] or match["letter"]
    if level is None and len(name) == 1:  # <a_12>: the letter is the level
        return "codes", name
    return name, level


def families(codes: Mapping[int, tuple[str, str | None]]) -> dict[str, list[int]]:
    """Ids by family, the largest family first."""
    found: dict[str, list[int]] = {}
    for id in sorted(codes):
        found.setdefault(codes[id][0], []).append(id)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def level_numbers(labels: Sequence[str | None]) -> list[int] | None:
    """1-based level of each label, in the order of the labels in use; None if one has no label."""
    if not labels or None in labels:
        return None
    numbers = {label: place for place, label in enumerate(_ordered({str(label) for label in labels}), 1)}
    return [numbers[str(label)] for label in labels]


def _ordered(labels: Iterable[str]) -> list[str]:
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdigit() else (1, 0, label))


def trailing(added: Mapping[int, str], end: int) -> list[int]:
    """Added tokens at the end of the vocabulary (ids below `end`) that no known tokenizer ships."""
    found = []
    id = end - 1
    while id in added:
        if not (SHIPPED.match(added[id]) or PLACEHOLDER.fullmatch(added[id]) or added[id].strip() in USUAL_SPECIALS):
            found.append(id)
        id -= 1
    return found[::-1]
