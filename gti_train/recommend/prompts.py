"""What the model reads and must answer in the downstream task: a history of items -> the next one.

Prompts go through the chat template at training and at decoding alike (`gti_train.model.sequences.prompt_ids`). The
history comes last in each phrasing, so that the examples of one user share all tokens up to where each of them ends.
"""

from collections.abc import Iterator, Mapping, Sequence

from gti_diag.errors import InputError
from gti_train.catalogue.records import Catalogue
from gti_train.catalogue.splits import Split
from gti_train.grounding.prompts import KINDS, grounding_examples
from gti_train.model.sequences import Example
from gti_train.semantic_ids.ids import SemanticIds

NEXT, WORDS, TITLE = "next", "words-to-code", "codes-to-title"
TO_CODE, TO_TEXT = "text-to-code", "code-to-text"
# What a fine-tuning run can ask: the task itself, the two directions of grounding, histories in words, titles of what is next.
TASKS = (NEXT, TO_CODE, TO_TEXT, WORDS, TITLE)
# At most so many items of a history are read. Longer ones are cut in steps of half as many (see `windows`).
LONGEST = 20

# Phrasings: what is asked, and what stands between two items.
HISTORY_PHRASINGS: dict[str, tuple[tuple[str, str], ...]] = {
    NEXT: (
        ("Which item comes next, after these? ", ", "),
        ("A customer chose the following items, in this order. Name the code of the one that they want now.\n", "\n"),
        ("Continue the list with one more code: ", " "),
    ),
    WORDS: (
        ("Here is what a customer took so far, in order. Give the code of the next item.\n", "\n"),
        ("Name the catalogue code of what follows: ", "; "),
        ("Items met: ", " / "),
    ),
    TITLE: (
        ("What is the item called that comes after these? ", ", "),
        ("A customer chose these codes, in this order. Write the title of the next item.\n", "\n"),
        ("Title of what follows in this list: ", " "),
    ),
}


def history_prompt(items: Sequence[str], *, phrasing: int = 0, task: str = NEXT) -> str:
    """The question about a history, each item as its codes in one string (as its title in `words-to-code`).

    Raises:
        InputError: an empty history, or no such phrasing.
    """
    if not items:
        raise InputError("the history is empty: there is nothing to predict from")
    if not 0 <= phrasing < len(HISTORY_PHRASINGS[task]):
        raise InputError(f"phrasing {phrasing} is unknown: use one of 0…{len(HISTORY_PHRASINGS[task]) - 1}")
    before, between = HISTORY_PHRASINGS[task][phrasing]
    return before + between.join(items)


def windows(length: int, longest: int) -> Iterator[tuple[int, int]]:
    """For each event but the first: from where on its history is read, and the event.

    No window exceeds `longest`. It moves in steps of half its length, so that most neighbours begin at the same event
    and share what follows.
    """
    step = max(1, longest // 2)
    for event in range(1, length):
        yield max(0, -(-(event - longest) // step) * step), event


def fine_tuning_examples(
    catalogue: Catalogue,
    sids: SemanticIds,
    *,
    tasks: Sequence[str] = (NEXT,),
    seed: int = 0,
    longest: int = LONGEST,
    words: int = 40,
) -> list[tuple[Example, ...]]:
    """What to learn, as families of examples that share a beginning; the kind of an example is its task.

    All events of `catalogue` are learned from: give it the training part of a split. A family holds every next item of
    one user in one phrasing (each user is there once in each phrasing), or what is asked of one item in one of the two directions between texts and codes.

    Raises:
        InputError: an unknown task, no tasks, an item without a semantic ID, no history of two events.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise InputError(f"tasks {list(tasks)!r}: choose one or more of {', '.join(TASKS)}")
    code = {item.id: "".join(sids.of(item.id)) for item in catalogue.items}
    title = {item.id: item.title for item in catalogue.items}
    families: list[tuple[Example, ...]] = []
    for task in tasks:
        if task in HISTORY_PHRASINGS:
            shown, wanted = (title if task == WORDS else code), (title if task == TITLE else code)
            families += _of_histories(catalogue, shown, wanted, task=task, longest=longest)
        else:
            families += _of_items(catalogue, sids, task=task, seed=seed, words=words)
    if not families:
        raise InputError("no user has two events to learn from (held-out ones are not): give longer histories")
    return families


def validation_examples(
    catalogue: Catalogue, split: Split, sids: SemanticIds, *, longest: int = LONGEST
) -> list[tuple[Example, ...]]:
    """The validation events of each user who has a history before them, in the first phrasing."""
    code = {item.id: "".join(sids.of(item.id)) for item in catalogue.items}
    families = []
    for user, events in split.valid.items():
        before = [event.item_id for event in split.train[user]] if user in split.train else []
        met = [*before, *(event.item_id for event in events)]
        cases = range(max(1, len(before)), len(met))
        asked = (history_prompt([code[item] for item in met[max(0, n - longest) : n]]) for n in cases)
        family = (Example(prompt, code[met[n]], NEXT, met[n]) for prompt, n in zip(asked, cases, strict=True))
        families.append(tuple(family))
    return [family for family in families if family]


def _of_histories(
    catalogue: Catalogue, shown: Mapping[str, str], wanted: Mapping[str, str], *, task: str, longest: int
) -> Iterator[tuple[Example, ...]]:
    for events in catalogue.histories.values():
        met = [event.item_id for event in events]
        for phrasing in range(len(HISTORY_PHRASINGS[task])):
            family = tuple(
                Example(
                    history_prompt([shown[item] for item in met[start:event]], phrasing=phrasing, task=task),
                    wanted[met[event]],
                    task,
                    met[event],
                )
                for start, event in windows(len(met), longest)
            )
            if family:
                yield family


def _of_items(
    catalogue: Catalogue, sids: SemanticIds, *, task: str, seed: int, words: int
) -> Iterator[tuple[Example, ...]]:
    kinds = [kind for kind in KINDS if kind.endswith("-to-code") == (task == TO_CODE)]
    for kind in kinds:
        for example in grounding_examples(catalogue, sids, kinds=[kind], seed=seed, words=words):
            yield (Example(example.prompt, example.answer, task, example.item_id),)
