"""gti.json, held against what it speaks of: its form, the rows of the matrix, the strings of the tokenizer."""

from __future__ import annotations

from typing import Any

from .places import Folder, read_json
from .records import Vocabulary, bad

NAME = "gti.json"


def read_sidecar(folder: Folder, *, vocabulary: Vocabulary | None, rows: int | None = None) -> dict[str, Any]:
    """The sidecar in `folder`: its ids are rows (where their number is known) and carry the tokens that it names.

    Without a tokenizer (`vocabulary` None) names cannot be held against ids.

    Raises:
        InputError: it has another form, an id that is no row, or a name that the tokenizer gives to another id.
    """
    from gti_diag.foreign import schemas

    where, found = f"{folder.root}/{NAME}", read_json(folder, NAME)
    if found.get("schema") != 1:
        raise bad(where, f"has schema {found.get('schema')!r}, this version reads 1")
    schemas.formed(schemas.Sidecar, found, where, "write it again with `gti-train extend`")
    for token, id in zip(found["new_tokens"], found["ids"], strict=True):
        if rows is not None and id >= rows:
            raise bad(where, f"places {token!r} at id {id}, the matrix has {rows:,} rows", _AGAIN)
        if vocabulary is None:
            continue
        named = vocabulary.tokens[id] if id < vocabulary.size else None
        if named != token:
            said = "has no such id" if named is None else f"calls it {named!r}"
            raise bad(where, f"calls id {id} {token!r}, but {vocabulary.source} {said}", _AGAIN)
    return found


_AGAIN = "tokenizer and gti.json belong to different checkpoints: copy both, or remove gti.json"
