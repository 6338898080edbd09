"""Files of a source: found, opened line by line, decoded; and what a layout is."""

import contextlib
import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from gti_diag.errors import InputError

from .collecting import BadRecord, Collector, Place

DEPTH = 3  # folders below the source in which files are looked for


@dataclass(frozen=True)
class Source:
    """A file, or a folder with the files below it; `columns` maps our field names to theirs."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files, sorted by path.

        Raises:
            InputError: nothing there.
        """
        if self.path.is_file():
            return (self.path,)
        if not self.path.is_dir():
            raise InputError(
                f"{self.path}: no such file or folder; name the catalogue's file or the folder of its files"
            )
        found = (path for path in sorted(self.path.rglob("*")) if len(path.relative_to(self.path).parts) <= DEPTH)
        return tuple(path for path in found if path.is_file() and not path.name.startswith("."))

    def like(self, *patterns: str) -> list[Path]:
        """The files whose names (in lower case, without .gz) match one of `patterns`, in the order of the patterns."""
        return [file for pattern in patterns for file in self.files if fnmatch(plain_name(file), pattern)]

    def ours(self, field_name: str, default: str) -> str:
        """The name under which the source keeps a field."""
        return self.columns.get(field_name, default)


@dataclass(frozen=True)
class Layout:
    """One way in which catalogues are laid out. `finds` says why a source has it, or None; `read` hands it over."""

    name: str
    what: str
    finds: Callable[[Source], str | None]
    read: Callable[[Source, Collector], None]


def plain_name(file: Path) -> str:
    return file.name.lower().removesuffix(".gz")


class Lines:
    """The lines of a text file, one at a time; `number` is that of the last. Only a line feed ends a line.

    Raises:
        InputError: the file cannot be opened or read, or a line is not in `encoding` and bad lines are not skipped.
    """

    def __init__(self, path: Path, collector: Collector, encoding: str = "utf-8") -> None:
        self.path, self.collector, self.encoding, self.number = path, collector, encoding, 0

    @property
    def place(self) -> Place:
        return Place(self.path, self.number)

    def __iter__(self) -> Iterator[str]:
        with opened(self.path) as file:
            for raw in _whole(file, self.path):
                self.number += 1
                line = None
                with self.collector.at(self.place):
                    line = self._decoded(raw)
                if line is not None:
                    yield line

    def _decoded(self, raw: bytes) -> str:
        try:
            text = raw.decode(self.encoding)
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} is {raw[error.start]:#04x}"
            raise BadRecord("bad_encoding", f"not {self.encoding.upper()} text ({byte}); convert the file") from error
        return text.removeprefix("\ufeff") if self.number == 1 else text


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if its name ends in `.gz`."""
    try:
        raw = path.open("rb")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise InputError(f"{path}: {reason}; name the catalogue's file or the folder of its files") from error
    with raw, gzip.open(raw) if path.name.lower().endswith(".gz") else raw as file:
        yield file  # type: ignore[misc]


def _whole(file: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read to its end ({error})") from error


def json_records(
    path: Path, collector: Collector, parse: Callable[[str], Any] = json.loads
) -> Iterator[tuple[Place, Any]]:
    """Every line that is not blank as a JSON object, with its place.

    Raises:
        InputError: the file is empty, or as `Lines`; a line that is no object, if bad lines are not skipped.
    """
    lines, empty = Lines(path, collector), True
    for line in lines:
        if not line.strip():
            continue
        empty, record = False, None
        with collector.at(lines.place):
            record = _object(line, parse)
        if record is not None:
            yield lines.place, record
    if empty and not collector.skipped:
        raise InputError(f"{path}: empty; at least one JSON object is needed")


def _object(line: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        record = parse(line)
    except (ValueError, SyntaxError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "nested too deeply"
        raise BadRecord("not_json", f"not JSON ({reason}); each line holds one object") from error
    if not isinstance(record, dict):
        raise BadRecord("not_json", f'a JSON {type(record).__name__}, not an object like {{"item_id": …}}')
    return record


def json_object(path: Path) -> dict[str, Any]:
    """A file that is one JSON object.

    Raises:
        InputError: it cannot be read, or is none.
    """
    with opened(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON {type(content).__name__}, not an object with one key an item or user")
    return content


def table_rows(
    lines: Lines, delimiter: str, header: Iterable[str] | None = None
) -> Iterator[tuple[Place, dict[str, str]]]:
    """Rows of a delimited text with their places; `header` names the columns of a file that does not.

    Raises:
        InputError: no header, or as `Lines`; a row with too few or too many fields, if bad rows are not skipped.
    """
    rows = csv.reader(iter(lines), delimiter=delimiter)
    names = list(header) if header else [name.strip() for name in next(rows, [])]
    if not any(names):
        raise InputError(f"{lines.path}: empty; a header and at least one row are needed")
    while True:
        wrong = None
        try:
            row = next(rows, None)
        except csv.Error as error:
            row, wrong = [], f"not a row of a table ({error})"
        if row is None:
            return
        if row and len(row) != len(names):
            wrong = f"{len(row)} fields, but the header names {len(names)}"
        if wrong:
            with lines.collector.at(lines.place):
                raise BadRecord("bad_row", wrong)
        elif row:
            yield lines.place, dict(zip(names, row, strict=True))


def header_of(path: Path) -> tuple[list[str], str]:
    """The column names of a delimited text and its delimiter: the mark that the first line holds most often."""
    try:
        first = next(iter(Lines(path, Collector())), "").strip("\r\n")
    except InputError:  # not UTF-8: no table of ours
        return [], ","
    mark = max(",;\t|", key=first.count)
    return [name.strip() for name in next(csv.reader([first], delimiter=mark), [])], mark
