"""A small world of products, written for this project, whose true hierarchy and tastes are known.

Every item belongs to one shelf of a three-level tree (9 departments, 27 aisles, 81 shelves), comes from one of
twelve brands, each with colours and a voice of its own, in one of ten editions (winter, beginner, mini, …) that cut
across all shelves, and has a make, a colour and a purpose; all of them show in its text. Users like a few aisles, keep to a brand and a colour, and move between the shelves of an aisle,
so that histories can be predicted better than by chance. Only `random.Random` is used: its stream is the same on every platform, so a seed gives the same
bytes everywhere.
"""

from dataclasses import replace
from random import Random

from .records import Catalogue, Event, Item
from .world_words import Brand, Shelf, brands, editions, shelves

TITLES = (
    "{brand} {edition} {kind} {noun}, {colour}",
    "{brand} {edition}: {kind} {noun} in {colour}",
    "{kind_} {noun} by {brand} ({edition}, {colour})",
    "{brand} {noun}, {kind}, {edition} edition, {colour}",
)
OPENINGS = (
    "From the {edition} edition by {brand}, {manner} as ever.",
    "{brand} made this {kind} {noun} for {use}.",
    "{kind_}, in {colour}, and meant for {use}.",
    "{a} {noun} from {brand}: {kind}, {manner}, made for {use}.",
    "Looking for something {kind} for {use}? {brand} had the same thought.",
    "{brand} is known for being {manner}, and its {edition} edition shows why.",
)
OPENINGS_MANY = (
    "From the {edition} edition by {brand}, {manner} as ever.",
    "{brand} made these {kind} {noun} for {use}.",
    "{kind_}, in {colour}, and meant for {use}.",
    "{noun^} from {brand}: {kind}, {manner}, made for {use}.",
    "Looking for something {kind} for {use}? {brand} had the same thought.",
    "{brand} is known for being {manner}, and its {edition} edition shows why.",
)
PURPOSES = (
    "Best for {use}, and welcome for {other}.",
    "Think of {use}, or {other}.",
    "Made with {use} in mind; handy for {other} too.",
    "Buyers mention {use} and {other}.",
    "A sound choice for {use}; good company for {other}.",
)
COLOURINGS = (
    "The {colour} finish suits the {edition} edition.",
    "This one comes in {colour}.",
    "Shown here in {colour}, from {brand}.",
    "The colour is {colour}.",
    "In {colour}, hard to mistake for anything but {brand}.",
)


def product_world(*, items: int = 800, users: int = 400, seed: int = 0) -> Catalogue:
    """`items` products spread evenly over the shelves and `users` histories of up to 15 events; pure.

    Raises:
        ValueError: fewer than one item, or a negative number of users.
    """
    if items < 1:
        raise ValueError(f"items is {items}: a world needs at least one product")
    if users < 0:
        raise ValueError(f"users is {users}: it cannot be negative")
    rng = Random(seed)
    tree = list(shelves())
    order = [tree[index % len(tree)] for index in range(items)]
    rng.shuffle(order)
    made: list[Item] = []
    titles: set[str] = set()
    for number, shelf in enumerate(order):
        item = _product(f"p{number:04d}", shelf, rng)
        if item.title in titles:  # rare: the same brand, range, make and colour again
            item = replace(item, title=f"{item.title}, No. {number}")
        titles.add(item.title)
        made.append(item)
    return Catalogue(tuple(made), _histories(tuple(made), users, rng))


def _product(identifier: str, shelf: Shelf, rng: Random) -> Item:
    brand = rng.choice(shelf.brands)
    noun, kind, colour = rng.choice(shelf.nouns), rng.choice(shelf.kinds), rng.choice(brand.colours)
    use, other = rng.sample(shelf.uses, 2)
    edition = rng.choice(list(editions()))
    words = {
        "brand": brand.name,
        "edition": edition,
        "manner": brand.manner,
        "kind": kind,
        "kind_": _capital(kind),
        "noun": noun,
        "a": "An" if noun[0] in "aeio" else "A",
        "noun^": _capital(noun),
        "colour": colour,
        "use": use,
        "other": other,
    }
    return Item(
        id=identifier,
        title=rng.choice(TITLES).format_map(words),
        description=_description(shelf, brand, words, rng),
        category=shelf.category,
        brand=brand.name,
        attributes={"make": kind, "colour": colour, "edition": edition, "use": use},
    )


def _description(shelf: Shelf, brand: Brand, words: dict[str, str], rng: Random) -> str:
    """An opening, then in any order: what it does, its use or colour, and what brand, edition and place say."""
    many = _plural(shelf.nouns[0])
    subject = "They" if many else "It"
    first, second = rng.sample(shelf.features, 2)
    doing = rng.choice(
        (
            f"{subject} {first}. {subject} also {second}.",
            f"{subject} {first}, and {subject.lower()} {second}.",
            f"The best part: {subject.lower()} {first}. {subject} {second}, too.",
        )
    )
    sentences = [
        doing,
        rng.choice(PURPOSES + COLOURINGS).format_map(words),
        *rng.sample(brand.voice, 2),
        *rng.sample(editions()[words["edition"]], 2),
        rng.choice(shelf.aisle),
        rng.choice(shelf.department),
    ]
    rng.shuffle(sentences)
    opening = rng.choice(OPENINGS_MANY if many else OPENINGS).format_map(words)
    return " ".join([opening, *sentences])


def _plural(noun: str) -> bool:
    return noun.endswith("s") and not noun.endswith(("ss", "lens"))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _histories(items: tuple[Item, ...], users: int, rng: Random) -> dict[str, tuple[Event, ...]]:
    aisles: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        aisles.setdefault(item.category[:2], []).append(item)
    names = sorted(aisles)
    histories: dict[str, list[Event]] = {}
    for number in range(users):
        liked = rng.sample(names, min(len(names), rng.choice((1, 2, 2, 3))))
        brand, colour = rng.choice(brands()).name, rng.choice(brands()).colours[0]
        time = rng.randrange(0, 300)
        seen: list[Item] = []
        for _ in range(rng.randrange(5, 16)):
            aisle = rng.choice(liked) if rng.random() < 0.9 else rng.choice(names)
            fresh = [item for item in aisles[aisle] if item not in seen]
            if not fresh:
                continue
            weights = [_appeal(item, brand, colour, seen) for item in fresh]
            chosen = rng.choices(fresh, weights)[0]
            seen.append(chosen)
            time += rng.randrange(1, 30)
            histories.setdefault(f"u{number:04d}", []).append(Event(chosen.id, time))
    return {user: tuple(events) for user, events in histories.items()}


def _appeal(item: Item, brand: str, colour: str, seen: list[Item]) -> float:
    """How much a user wants an item next: loyal to a brand, fond of a colour, rarely one shelf twice in a row."""
    appeal = 1.0
    if item.brand == brand:
        appeal *= 4.0
    if item.attributes["colour"] == colour:
        appeal *= 3.0
    if seen and seen[-1].category == item.category:
        appeal *= 0.2
    return appeal
