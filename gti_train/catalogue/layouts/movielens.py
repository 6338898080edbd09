"""MovieLens: 100K (`u.data`, `u.item`), 1M (`ratings.dat`, `movies.dat`) and later (`ratings.csv`, `movies.csv`).

A rating is an event, a film's genres are its category. The older files are Latin-1, as their README says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..collecting import BadRecord, Collector, Place
from ..sources import Layout, Lines, Source, table_rows

RATINGS = ("userId", "movieId", "rating", "timestamp")
FILMS = ("movieId", "title", "genres")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
U_ITEM = ("movieId", "title", "release", "video", "url", *GENRES)


@dataclass(frozen=True)
class Edition:
    """The files of one edition and how they are written; `header` None: the file names its own columns."""

    ratings: str
    films: str
    between: str
    encoding: str
    header: tuple[tuple[str, ...], tuple[str, ...]] | None
    films_between: str


EDITIONS = (
    Edition("u.data", "u.item", "\t", "latin-1", (RATINGS, U_ITEM), "|"),
    Edition("ratings.dat", "movies.dat", "::", "latin-1", (RATINGS, FILMS), "::"),
    Edition("ratings.csv", "movies.csv", ",", "utf-8", None, ","),
)


def finds(source: Source) -> str | None:
    edition = _edition(source)
    return f"{edition.ratings} and {edition.films} are MovieLens' names" if edition else None


def read(source: Source, collector: Collector) -> None:
    edition = _edition(source)
    assert edition is not None, "read without finds"
    ratings, films = edition.header or (None, None)
    collector.table = True
    for place, row in _rows(source, edition.films, edition.films_between, edition.encoding, films, collector):
        with collector.at(place):
            marked = [genre for genre in GENRES if row.get(genre) == "1"]
            named = [genre for genre in row.get("genres", "").split("|") if genre and genre != "(no genres listed)"]
            collector.item(row.get("movieId"), title=row.get("title"), category=marked or named)
    for place, row in _rows(source, edition.ratings, edition.between, edition.encoding, ratings, collector):
        with collector.at(place):
            collector.event(row.get("userId"), row.get("movieId"), row.get("timestamp"))


def _rows(
    source: Source, name: str, between: str, encoding: str, header: tuple[str, ...] | None, collector: Collector
) -> Iterator[tuple[Place, dict[str, str]]]:
    lines = Lines(source.like(name)[0], collector, encoding)
    if header is None:
        yield from table_rows(lines, between)
        return
    for line in lines:  # these files quote nothing
        parts = line.rstrip("\r\n").split(between)
        if len(parts) == len(header):
            yield lines.place, dict(zip(header, parts, strict=True))
        elif line.strip():
            with collector.at(lines.place):
                raise BadRecord("bad_row", f"{len(parts)} fields with {between!r} between, {len(header)} are needed")


def _edition(source: Source) -> Edition | None:
    return next((e for e in EDITIONS if source.like(e.ratings) and source.like(e.films)), None)


LAYOUT = Layout(
    "movielens", "u.data and u.item, ratings.dat and movies.dat, or ratings.csv and movies.csv", finds, read
)
