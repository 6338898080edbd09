"""A search collection out of our own product world, whose grades follow from how it was made.

A query is made of what a shopper knows: the kind of thing (by any of its names), sometimes a make, an edition, a brand, a colour. A
product's grade says how much of that is true of it:

    4  the shelf, and everything else that was asked for
    3  the shelf, and a part of what else was asked for
    2  the shelf alone
    1  the same aisle
    0  anything else

Queries are made from products, and products of one shelf form a group: a split by groups never tests on a shelf that was learned.
"""

from collections.abc import Mapping
from random import Random

from gti_train.catalogue.records import Item
from gti_train.catalogue.world import product_world
from gti_train.catalogue.world_words import shelves

from .collection import Collection, Document, Query

FORMS = {
    ("make",): ("{make} {noun}", "{noun} {make}"),
    ("edition",): ("{noun}, {edition} edition", "{edition} {noun}"),
    ("brand",): ("{brand} {noun}", "{noun} by {brand}"),
    ("colour",): ("{colour} {noun}", "a {noun} in {colour}"),
    ("make", "colour"): ("{make} {noun} in {colour}",),
    ("edition", "brand"): ("{brand} {noun} {edition}",),
    ("make", "brand"): ("{brand} {make} {noun}",),
}


def product_search(*, items: int = 400, queries: int = 600, seed: int = 0) -> Collection:
    """`items` products and `queries` queries after them, each with grades for the products of its aisle; pure.

    Raises:
        ValueError: no items.
    """
    catalogue, rng = product_world(items=items, users=0, seed=seed), Random(seed)
    nouns: dict[tuple[str, ...], tuple[str, ...]] = {shelf.category: shelf.nouns for shelf in shelves()}
    documents = tuple(Document(item.id, item.title, item.description, item.category[2]) for item in catalogue.items)
    made: dict[str, tuple[Item, tuple[str, ...]]] = {}
    for _ in range(20 * queries):  # some come out twice
        if len(made) == queries:
            break
        item, asked = rng.choice(catalogue.items), rng.choice(list(FORMS))
        words = {**_facts(item), "noun": rng.choice(nouns[item.category])}
        made.setdefault(rng.choice(FORMS[asked]).format_map(words), (item, asked))
    named = tuple(Query(f"q{number:04d}", text) for number, text in enumerate(made))
    judged = {query.id: _grades(*made[query.text], catalogue.items) for query in named}
    return Collection(documents, named, judged)


def _grades(wanted: Item, asked: tuple[str, ...], items: tuple[Item, ...]) -> dict[str, int]:
    """The grades of all products of the aisle, of which none is 0."""
    facts, found = _facts(wanted), {}
    for item in items:
        if item.category[:2] != wanted.category[:2]:
            continue
        true = sum(_facts(item)[name] == facts[name] for name in asked)
        same = item.category == wanted.category
        found[item.id] = (4 if true == len(asked) else 3 if true else 2) if same else 1
    return found


def _facts(item: Item) -> Mapping[str, str]:
    return {**item.attributes, "brand": item.brand}
