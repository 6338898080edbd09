"""A collection small enough for tests, whose words say what is relevant, and a model that can learn it."""

from gti_train.search.collection import Collection, Document, Query

THINGS = {
    "kettle": "boils water quickly and keeps it warm",
    "tent": "easy to carry and quiet in the wind",
    "lamp": "a warm light over the desk",
    "shoes": "a soft sole for long roads",
}


def shop() -> Collection:
    """Two documents of each thing, the red one best; the queries name a thing, and think little of the others."""
    documents = [
        Document(f"{name}-{colour}", f"{colour} {name}", text, name)
        for name, text in THINGS.items()
        for colour in ("red", "light")
    ]
    queries = [Query(f"{name}-{i}", f"{word} {name}") for name in THINGS for i, word in enumerate(("the", "our", "a"))]
    judged = {q.id: {f"{q.id[:-2]}-red": 4, f"{q.id[:-2]}-light": 2} for q in queries}
    return Collection(tuple(documents), tuple(queries), judged)
