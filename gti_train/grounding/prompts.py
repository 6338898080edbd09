"""What the model reads and must answer while new tokens are grounded: text -> codes and codes -> text.

Six kinds of question, {title, description, both} x {text -> codes, codes -> text}, each in several phrasings.
A prompt is what a user would say: chat models read it in their own template, base models as it stands (see
`batches`). The answer is what follows, and the only text that is learned from.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue, Item
from gti_train.model.sequences import Example
from gti_train.semantic_ids.ids import SemanticIds

KINDS = (
    "title-to-code",
    "description-to-code",
    "both-to-code",
    "code-to-title",
    "code-to-description",
    "code-to-both",
)

PHRASINGS: dict[str, tuple[str, ...]] = {
    "title-to-code": (
        "Which code does our catalogue give to the item called “{title}”?",
        "Title: {title}\nCode:",
        "A customer asks for “{title}”. Answer with its item code only.",
        "Write down the catalogue code of: {title}",
        "{title}\n\nName the code that stands for this item.",
    ),
    "description-to-code": (
        "Here is a text about one of our items: {description}\nWhich code does the item carry?",
        "Description: {description}\nCode:",
        "{description}\n\nName the code of the item described above.",
        "Someone describes a thing like this: “{description}” Give the matching item code.",
        "Read, then answer with the catalogue code only. {description}",
    ),
    "both-to-code": (
        "{title}\n{description}\n\nWhich code does this item carry?",
        "Title: {title}\nDescription: {description}\nCode:",
        "File the following item under its code. It is called “{title}”. {description}",
        "“{title}”: {description} What is its catalogue code?",
        "Give the code for this entry.\nName: {title}\nAbout: {description}",
    ),
    "code-to-title": (
        "What is the item {code} called?",
        "Code: {code}\nTitle:",
        "A customer holds a slip that says {code}. Tell them the name of the item.",
        "Write the title that belongs to {code}.",
        "{code}\n\nWhich item is this? Answer with its title.",
    ),
    "code-to-description": (
        "Describe the item {code}.",
        "Code: {code}\nDescription:",
        "What should a shopper know about {code}?",
        "Write the catalogue text for {code}.",
        "{code}\n\nSay what this item is and whom it suits.",
    ),
    "code-to-both": (
        "Give the name of the item {code}, then describe it.",
        "Code: {code}\nEntry:",
        "Write the full catalogue entry of {code}: title first, text after.",
        "What is {code}, and what is it like?",
        "{code}\n\nIntroduce this item to a shopper by name and description.",
    ),
}


def grounding_examples(
    catalogue: Catalogue,
    sids: SemanticIds,
    *,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    words: int | None = 60,
) -> list[Example]:
    """One example per item and kind, in a phrasing and an order drawn from `seed`.

    Descriptions are cut to their first `words` words (None keeps them whole); an item without a description has
    no description examples. Another epoch with other phrasings is the same call with another seed.

    Raises:
        InputError: an unknown kind, no kinds, or an item without a semantic ID.
    """
    unknown = [kind for kind in kinds if kind not in PHRASINGS]
    if unknown or not kinds:
        raise InputError(f"kinds {list(kinds)!r}: choose one or more of {', '.join(KINDS)}")
    rng = Random(seed)
    examples = []
    for item in catalogue.items:
        code = "".join(sids.of(item.id))
        for kind in kinds:
            phrasing = rng.choice(PHRASINGS[kind])  # drawn even if unused: one item's text never shifts another's draw
            if item.description or "title" in kind:
                examples.append(_example(item, kind, code=code, phrasing=phrasing, words=words))
    rng.shuffle(examples)
    return examples


def hold_out(catalogue: Catalogue, sids: SemanticIds, *, share: float, seed: int = 0) -> tuple[Catalogue, Catalogue]:
    """The catalogue without, and with only, about `share` of its items, drawn from `seed`, to watch the loss on.

    An item is held out only while each of its codes belongs to another item that stays: a code that no example names
    would not be trained. So fewer may be held out than asked for.

    Raises:
        InputError: a share outside (0, 1), or no item can be spared.
    """
    if not 0 < share < 1:
        raise InputError(f"share of held-out items is {share}: it must lie between 0 and 1")
    left = Counter(code for item in catalogue.items for code in sids.of(item.id))
    spared: set[str] = set()
    for item in Random(seed).sample(catalogue.items, len(catalogue.items)):
        codes = sids.of(item.id)
        if len(spared) < share * len(catalogue.items) and all(left[code] > 1 for code in codes):
            spared.add(item.id)
            left.subtract(codes)
    if not spared:
        raise InputError("no item can be held out: each has a code that no other item has")
    parts = ([i for i in catalogue.items if (i.id in spared) == held] for held in (False, True))
    kept, held_out = (replace(catalogue, items=tuple(items)) for items in parts)
    return kept, held_out


def examples_from(
    catalogue: Catalogue,
    sids: SemanticIds,
    *,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    words: int | None = 60,
    held_out: float = 0.0,
) -> tuple[list[Example], list[Example], int]:
    """Examples to train on, examples of a share of the items that is `held_out`, and how many items the first are about.

    Raises:
        InputError: as `grounding_examples` and `hold_out`.
    """
    kept, apart = hold_out(catalogue, sids, share=held_out, seed=seed) if held_out else (catalogue, None)
    examples, held = (
        [] if part is None else grounding_examples(part, sids, kinds=kinds, seed=seed, words=words)
        for part in (kept, apart)
    )
    return examples, held, len(kept.items)


def _example(item: Item, kind: str, *, code: str, phrasing: str, words: int | None) -> Example:
    description = " ".join(item.description.split()[:words])
    prompt = phrasing.format(title=item.title, description=description, code=code)
    wanted = kind.split("-to-")[1]
    entry = f"{item.title}\n{description}"
    answer = {"code": code, "title": item.title, "description": description, "both": entry}[wanted]
    return Example(prompt, answer, kind, item.id)
