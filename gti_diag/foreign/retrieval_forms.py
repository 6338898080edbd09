"""What a line of a retrieval collection must hold: documents and queries as JSON lines, ours and those of BEIR.

Import this inside functions, as `schemas`.
"""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from .schemas import Form, Open, Real, Schema, Whole

Identifier = Annotated[str, Field(min_length=1, max_length=500)]


class DocumentLine(Open):
    """`doc_id` (BEIR: `_id`), `title`, `text`, and `group`: documents of one group never part at a split."""

    doc_id: Identifier = Field(validation_alias=AliasChoices("doc_id", "_id"))
    title: str = ""
    text: str
    group: str | None = None


class QueryLine(Open):
    """`query_id` (BEIR: `_id`) and `text`."""

    query_id: Identifier = Field(validation_alias=AliasChoices("query_id", "_id"))
    text: str


class WordingForm(Form):
    """judge.json, beside a checkpoint's weights: how it is asked."""

    schema_: Schema = Field(alias="schema")
    policy: str
    yes: str
    no: str
    tail: str
    order: Literal["query-first", "document-first"]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    document_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None


class SummaryLine(Form):
    """What a document was cut to, and by how much that moved the judge."""

    doc_id: Identifier
    text: str
    moved: Real


class ItemsForm(Form):
    """items.json, beside item tokens: their documents in order, and the token that stands for a vector in a prompt."""

    schema_: Schema = Field(alias="schema")
    token: Whole
    ids: list[Identifier]


class EncoderForm(Form):
    """item_encoder.json, beside an item encoder's weights."""

    schema_: Schema = Field(alias="schema")
    slots: Annotated[int, Field(ge=1, le=4096)]
