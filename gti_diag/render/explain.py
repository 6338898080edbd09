"""What each number and verdict means: one page a name, read from `explanations.toml`."""

import functools
from dataclasses import dataclass

from gti_diag.errors import InputError
from gti_diag.files import shipped_toml


@dataclass(frozen=True)
class Explanation:
    """A measure or verdict on one page; `one_line` is its tooltip."""

    name: str
    title: str
    one_line: str
    definition: str
    convention: str
    range: str
    reading: str
    pitfalls: str
    source: str


@functools.cache
def explanations() -> dict[str, Explanation]:
    """All pages by name, in the order in which they are best read."""
    return {
        name: Explanation(name, **fields) for name, fields in shipped_toml(__package__, "explanations.toml").items()
    }


def lookup(name: str) -> Explanation:
    """The page of `name`; a centred measure falls back to the page of the measure itself.

    Raises:
        InputError: no such name; the closest ones are offered.
    """
    import difflib

    pages = explanations()
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    by_title = {page.title.lower().replace(" ", "_"): key for key, page in pages.items()}
    for key in (wanted, by_title.get(wanted, ""), wanted.removesuffix("_centred")):
        if key in pages:
            return pages[key]
    close = difflib.get_close_matches(wanted, pages, n=3) or list(pages)[:3]
    raise InputError(f"nothing is called {name!r}; did you mean {', '.join(close)}? `gti-diag explain` lists all")
