"""Pickles read into records that do nothing: no import, no call, no attribute set, on anything but a record of ours.

A small stack machine over the opcodes that `pickletools` decodes. What a pickle would import is a `Name`, what it would call is a
`Record` of the name and its arguments, what it would set (BUILD) lies in that record's `state`. Opcodes that give memory away for
nothing (bytearrays by size, out-of-band buffers, the extension registry) are refused, and what all values take is counted.
Source: https://docs.python.org/3/library/pickletools.html; CPython's Lib/pickle.py for the order of arguments.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

BYTES = 64 * 10**6  # of one pickle; those of the largest models take a few
MEMORY = 256 * 10**6  # that its values may take
# About what a value of each kind takes with its place on a stack; strings and bytes take their length too.
WEIGHTS = {"EMPTY_DICT": 240, "DICT": 240, "EMPTY_SET": 240, "FROZENSET": 240, "REDUCE": 160, "NEWOBJ": 160, "NEWOBJ_EX": 160,
           "OBJ": 160, "INST": 160, "MEMOIZE": 100, "PUT": 100, "BINPUT": 100, "LONG_BINPUT": 100, "BINPERSID": 120, "PERSID": 120,
           "GLOBAL": 160, "STACK_GLOBAL": 160, "SETITEM": 100}  # fmt: skip
USUAL = 72


class Refused(ValueError):
    """The pickle asks for something that is not read; the message is what."""


class Damaged(ValueError):
    """The bytes are no pickle, or one that claims what is not there."""


@dataclass(frozen=True)
class Name:
    """What a pickle would have imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """What a pickle would have called: the name, its arguments, and what was put into the result since."""

    __slots__ = ("arguments", "items", "name", "pairs", "state")

    def __init__(self, name: str, arguments: tuple) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.items: list = []
        self.pairs: dict = {}


class Persistent:
    """What a pickle says lies elsewhere: torch's storages."""

    __slots__ = ("id",)

    def __init__(self, id: Any) -> None:
        self.id = id


class Metered:
    """A stream of which no more than `left` bytes are read."""

    def __init__(self, stream: BinaryIO, left: int = BYTES) -> None:
        self.stream, self.left = stream, left

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise Damaged(f"asks for {count:,} bytes, more than is left of {BYTES:,}")
        self.left -= count
        return self.stream.read(count)

    def readline(self) -> bytes:
        line = self.stream.readline(min(self.left, 1 << 16))
        self.left -= len(line)
        return line


def load(stream: BinaryIO, allowed: Callable[[str], bool]) -> Any:
    """The value of the pickle that begins here; the stream is left behind it.

    Raises:
        Refused: it names something that is not `allowed`, or uses an opcode that is not read.
        Damaged: anything else.
    """
    machine = _Machine(allowed)
    try:
        for opcode, argument, _ in _opcodes(stream):
            machine.step(opcode.name, argument)
        return machine.pop()
    except (Refused, Damaged):
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
        UnicodeError,
    ) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _opcodes(stream: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    return pickletools.genops(Metered(stream))  # type: ignore[arg-type]


class _Machine:
    """A stack, the marks on it, and the memo."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self.allowed = allowed
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = MEMORY

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says."""
        self.left -= WEIGHTS.get(opcode, USUAL) + (len(argument) if isinstance(argument, (str, bytes)) else 0)
        if self.left < 0:
            raise Damaged(f"holds more than {MEMORY:,} bytes of values")
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode](argument))
        elif opcode in ACTIONS:
            ACTIONS[opcode](self, argument)
        else:
            raise Refused(f"opcode {opcode}")

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Damaged("takes from below a mark")
        return self.stack.pop()

    def top(self) -> Any:
        found = self.pop()
        self.stack.append(found)
        return found

    def since_mark(self) -> list:
        at = self.marks.pop()
        found = self.stack[at:]
        del self.stack[at:]
        return found

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("a name is no text")
        found = Name(module, name)
        if not self.allowed(str(found)):
            raise Refused(str(found))
        self.stack.append(found)

    def call(self, name: Any, arguments: Any) -> None:
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Damaged("calls what is no name")
        ordered = str(name) == "collections.OrderedDict" and not arguments
        self.stack.append({} if ordered else Record(str(name), arguments))

    def remember(self, place: Any) -> None:
        self.memo[len(self.memo) if place is None else int(place)] = self.top()

    def extend(self, values: list) -> None:
        target = self.top()
        if isinstance(target, Record):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Damaged("appends to what is no list")

    def set(self, flat: list) -> None:
        target = self.top()
        pairs = target.pairs if isinstance(target, Record) else target
        if not isinstance(pairs, dict) or len(flat) % 2:
            raise Damaged("sets items of what is no dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            pairs[_key(key)] = value

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes (torch's _metadata) are nothing to us
            raise Refused(f"BUILD on a {type(target).__name__}")


def _key(key: Any) -> Any:
    """A key of a dictionary; nested tuples have no place there, and their hash no end."""
    if isinstance(key, tuple) and not all(isinstance(part, (str, int, bytes, float, type(None))) for part in key):
        raise Damaged("a key is a nested tuple")
    return key


def _mapping(machine: _Machine, _: Any) -> None:
    flat = machine.since_mark()
    machine.stack.append({})
    machine.set(flat)


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        machine.stack.append(tuple([machine.pop() for _ in range(count)][::-1]))

    return make


def _call_with_keywords(machine: _Machine, _: Any) -> None:
    keywords, arguments, name = machine.pop(), machine.pop(), machine.pop()
    machine.call(name, (*arguments, keywords))


def _call(machine: _Machine, _: Any) -> None:
    arguments, name = machine.pop(), machine.pop()
    machine.call(name, arguments)


def _instance(machine: _Machine, named: str) -> None:
    arguments = machine.since_mark()
    machine.name(*named.split(" ", 1))
    machine.call(machine.pop(), tuple(arguments))


def _object(machine: _Machine, _: Any) -> None:
    name, *arguments = machine.since_mark()
    machine.call(name, tuple(arguments))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _set_one(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set([key, value])


# Values that stand in the pickle itself.
CONSTANTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        lambda argument: argument,
    ),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: Record("builtins.set", ()),
    "PERSID": Persistent,
}  # fmt: skip

ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: (
        machine.since_mark() if machine.marks and machine.marks[-1] == len(machine.stack) else machine.pop()
    ),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(Record("builtins.frozenset", tuple(machine.since_mark()))),
    "DICT": _mapping,
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": _set_one,
    "SETITEMS": lambda machine, _: machine.set(machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, place: machine.remember(place)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, place: machine.stack.append(machine.memo[int(place)])
    ),
    "GLOBAL": lambda machine, named: machine.name(*named.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_keywords,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stack.append(Persistent(machine.pop())),
}
