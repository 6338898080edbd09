"""Pickles are read as Python would read them, except that nothing happens."""

import collections
import io
import os
import pathlib
import pickle
import pickletools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.foreign import inert_pickle
from gti_diag.foreign.inert_pickle import Damaged, Name, Persistent, Record, Refused, load

KEYS = st.one_of(st.text(), st.integers(), st.none(), st.tuples(st.integers(), st.text()))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner)),
    max_leaves=20,
)


def read(data: bytes, allowed=lambda name: True):
    return load(io.BytesIO(data), allowed)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_what_pickle_reads(value, protocol):
    data = pickle.dumps(value, protocol)
    if b"_codecs" not in data and b"c__builtin__" not in data:  # how protocols before 3 write bytes
        assert read(data) == value
        assert read(pickletools.optimize(data)) == value


def test_the_stream_is_left_behind_the_pickle():
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps({"a": 2}) + b"rest")
    assert (load(stream, bool), load(stream, bool), stream.read()) == ([1], {"a": 2}, b"rest")


class Point:
    def __init__(self, x):
        self.x = x


class Counted(dict):
    pass


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_become_records(protocol):
    found = read(pickle.dumps([Point(3), Counted(a=1), {1, 2}, collections.OrderedDict(b=2)], protocol))
    point, counted, members, ordered = found
    assert (point.name.rpartition(".")[2], point.state) == ("Point", {"x": 3})
    assert counted.pairs == {"a": 1}
    assert ordered == {"b": 2}
    assert isinstance(members, Record)


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_not_allowed_is_named_and_nothing_runs(tmp_path, protocol):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    data = pickle.dumps(Bomb(), protocol)
    with pytest.raises(Refused, match=r"^(posix|nt)\.system$"):
        read(data, lambda name: not name.endswith("system"))
    assert read(data).arguments == (f"touch {tmp_path}/ran",)
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_class_can_be_changed():
    """BUILD with a slot state set `parent` on pathlib's class for the whole process."""
    before = pathlib.PurePosixPath("a/b").parent
    changed = b"cpathlib\nPurePosixPath\n(N(dS'parent'\nS'owned'\nstb."
    with pytest.raises(Refused, match="BUILD on a Name"):
        read(changed)
    assert pathlib.PurePosixPath("a/b").parent == before


def test_persistent_ids_are_kept():
    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", "0") if isinstance(value, Point) else None

    out = io.BytesIO()
    Writer(out, 2).dump({"w": Point(1)})
    found = read(out.getvalue())["w"]
    assert isinstance(found, Persistent)
    assert found.id == ("storage", "0")


HUGE = (3 << 30).to_bytes(8, "little")


@pytest.mark.parametrize(
    "data, error, said",
    [
        (b"", Damaged, "pickle exhausted"),
        (b"\x80\x05N", Damaged, "pickle exhausted"),
        (b"\x80\x05\x96" + HUGE + b".", Damaged, "bytes"),
        (b"\x80\x05\x8d" + HUGE + b".", Damaged, "more than is left"),
        (b"\x80\x05\x97.", Refused, "opcode NEXT_BUFFER"),
        (b"\x80\x02\x82\x01.", Refused, "opcode EXT1"),
        (b"].", None, ""),
        (b".", Damaged, "IndexError"),
        (b"(t(", Damaged, "pickle exhausted"),
        (b"]]s.", Damaged, "IndexError"),
        (b"NNb.", Refused, "BUILD on a NoneType"),
        (b"NN\x85R.", Damaged, "calls what is no name"),
        (b"}((NtNtNs.", Damaged, "a key is a nested tuple"),
        (b"h\x05.", Damaged, "KeyError"),
        (b"]" * 13_000 + b".", None, ""),
        (b"]" * 14_000 + b".", Damaged, "bytes of values"),
        (b"\x85" * 10 + b".", Damaged, "IndexError"),
        (b"N" + b"\x85" * 13_000 + b".", None, ""),
    ],
)
def test_damage(data, error, said, monkeypatch):
    monkeypatch.setattr(inert_pickle, "MEMORY", 10**6)
    if error is None:
        read(data)
        return
    with pytest.raises(error, match=said):
        read(data)


def test_a_size_that_is_claimed_is_not_allocated():
    import tracemalloc

    bomb = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (3 << 30).to_bytes(5, "little") + b"\x85R."
    tracemalloc.start()
    found = read(bomb)
    assert (found.name, found.arguments) == ("__builtin__.bytearray", (3 << 30,))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


OPCODES = {opcode.code.encode("latin-1") for opcode in pickletools.opcodes}


@st.composite
def programs(draw) -> bytes:
    """Opcodes in any order, with arguments of a form they can have."""
    parts = []
    for code in draw(st.lists(st.sampled_from(sorted(OPCODES)), max_size=40)):
        opcode = pickletools.code2op[code.decode("latin-1")]
        parts.append(code + (b"" if opcode.arg is None else draw(arguments(opcode.arg.n))))
    return b"".join(parts) + b"."


def arguments(size: int) -> st.SearchStrategy[bytes]:
    """Bytes for an argument of this size: its own length, a line, or a counted string."""
    if size >= 0:
        return st.binary(min_size=size, max_size=size)
    line = st.sampled_from([b"0\n", b"1\n", b"'x'\n", b"os\nsystem\n", b"collections\nOrderedDict\n", b"1.5\n"])
    counted = st.builds(
        lambda width, text: len(text).to_bytes(width, "little") + text,
        st.sampled_from([1, 4, 8]),
        st.binary(max_size=4),
    )
    return st.one_of(line, counted)


def outcome(data: bytes) -> str:
    """read, refused or damaged; anything else is raised."""
    try:
        found = read(data, lambda name: name.startswith("collections."))
    except Refused:
        return "refused"
    except Damaged:
        return "damaged"
    assert not isinstance(found, type) and not callable(found), found
    assert type(found) in (dict, list, tuple, str, bytes, int, float, bool, type(None), Record, Name, Persistent)
    return "read"


@given(programs())
def test_any_order_of_opcodes_is_read_or_refused(data):
    outcome(data)


def test_every_opcode_is_read_or_refused_by_name():
    unread = {opcode.name for opcode in pickletools.opcodes} - {*inert_pickle.CONSTANTS, *inert_pickle.ACTIONS}
    assert unread == {"BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4"}
