"""One question to a judge or ranker, built by one function for training and for serving.

    query first      [policy, query] [document] [Match:]     one query, many documents: serving
    document first   [policy, document] [query] [Match:]     one document, many queries: labelling and training at scale

The parts are tokenised apart, so what prompts share is known, not searched for, and where a prompt is too long, tokens of the
document go, never those of the question: a suffix that is cut off gives scores that look right and mean nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gti_diag.errors import InputError, bad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .collection import Collection
    from .pairs import Pair

QUERY_FIRST, DOCUMENT_FIRST = "query-first", "document-first"
ORDERS = (QUERY_FIRST, DOCUMENT_FIRST)
POLICY = "Does the document answer the query?"
QUERY, DOCUMENT = "\nQuery:", "\nDocument:"


@dataclass(frozen=True)
class Wording:
    """What is asked, and how it is answered: `policy` is text that users edit; `tail` ends every prompt, and is best short,
    since it is run for every pair; the answers differ in their first token.

    max_tokens: the most of a prompt; document_tokens: the most of a document, None for what the rest of the prompt leaves.
    """

    policy: str = POLICY
    yes: str = " Yes"
    no: str = " No"
    tail: str = "\nMatch:"
    order: str = QUERY_FIRST
    max_tokens: int = 512
    document_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"order {self.order!r} is unknown: use one of {', '.join(ORDERS)}")


@dataclass(frozen=True)
class Prompts:
    """Token ids of each question; `shared[i]` first tokens of prompt i are those that its neighbours have too."""

    ids: list[list[int]]
    shared: list[int]


@dataclass(frozen=True)
class Prompter:
    """Questions in the tokens of one model."""

    tokenizer: "PreTrainedTokenizerBase"
    wording: Wording
    start: tuple[int, ...] = field(init=False)  # what every prompt begins with
    asked: list[int] = field(init=False)
    read: list[int] = field(init=False)
    tail: list[int] = field(init=False)
    rows: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        begin = self.tokenizer("")["input_ids"]
        begin = begin[:-1] if begin and begin[-1] == self.tokenizer.eos_token_id else begin
        parts = {"asked": QUERY, "read": DOCUMENT, "tail": self.wording.tail}
        made: dict[str, object] = {name: self.tokens(text) for name, text in parts.items()}
        made |= {"start": (*begin, *self.tokens(self.wording.policy)), "rows": self._answers()}
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def prompts(self, pairs: Sequence[tuple[str, str]]) -> Prompts:
        """Questions about pairs of query and document texts.

        Raises:
            InputError: a text is empty, or as `assembled`.
        """
        texts = {text for pair in pairs for text in pair}
        known = {text: self.tokens(f" {text}") for text in texts if text.strip()}
        if len(known) < len(texts):
            raise InputError("a query or document is empty: give it a text, or leave it out")
        return self.assembled([(known[query], known[document]) for query, document in pairs])

    def asking(self, collection: "Collection", pairs: "Sequence[Pair]") -> Prompts:
        """The same about pairs by their places in a collection."""
        return self.prompts([(collection.queries[q].text, collection.documents[d].text) for q, d in pairs])

    def assembled(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Prompts:
        """The same for pairs of query and document tokens.

        Raises:
            InputError: policy and query alone take more than `max_tokens`.
        """
        made = [self._prompt(list(query), list(document)) for query, document in pairs]
        return Prompts([prefix + rest for prefix, rest in made], [len(prefix) for prefix, _ in made])

    def _prompt(self, query: list[int], document: list[int]) -> tuple[list[int], list[int]]:
        """What is shared, and what is not; the document is cut to what the rest leaves."""
        asked, read, tail = self.asked, self.read, self.tail
        fixed = len(self.start) + len(asked) + len(query) + len(read) + len(tail)
        room = self.wording.max_tokens - fixed
        if room < 1:
            raise InputError(
                f"policy and query {self.tokenizer.decode(query)[:40]!r} take {fixed} tokens and leave none of {self.wording.max_tokens} for a "
                "document: shorten them, or allow more tokens"
            )
        document = document[: min(room, self.wording.document_tokens or room)]
        if self.wording.order == QUERY_FIRST:
            return [*self.start, *asked, *query, *read], [*document, *tail]
        return [*self.start, *read, *document, *asked], [*query, *tail]

    def _answers(self) -> tuple[int, int]:
        first = []
        for text in (self.wording.yes, self.wording.no):
            ids = self.tokens(text)
            if not ids:
                raise InputError(f"the answer {text!r} has no token: give it a word")
            first.append(ids[0])
        if first[0] == first[1]:
            raise InputError(
                f"the answers {self.wording.yes!r} and {self.wording.no!r} begin with the same token of this model "
                f"({self.tokenizer.convert_ids_to_tokens(first[0])!r}): choose two that differ at once, such as ' Yes' and ' No'"
            )
        return first[0], first[1]

    def tokens(self, text: str) -> list[int]:
        """The ids of a part."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def read_policy(path: str | os.PathLike[str]) -> str:
    """The policy in a text file.

    Raises:
        InputError: it cannot be read, or is empty.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise bad(path, f"cannot be read ({error})", "name a text file that says what counts as a match") from error
    if not text:
        raise bad(path, "is empty", "say what counts as a match")
    return text
