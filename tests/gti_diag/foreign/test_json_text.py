"""JSON that others wrote: what is read, and the one line in which everything else is refused."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gti_diag.errors import InputError
from gti_diag.foreign import limits
from gti_diag.foreign.json_text import parse_json, writable

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)),
)


@given(JSON)
def test_ordinary_json_is_read_as_json_reads_it(value):
    if "Infinity" not in (text := json.dumps(value)):
        assert parse_json(text.encode(), "x", finite=True) == json.loads(text)


@pytest.mark.parametrize(
    "text, said",
    [
        (b"{", "is not usable JSON"),
        (b"\xff{}", "is not usable JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "key 'a' twice"),
        (b"1" * 65, "a number of 65 digits"),
        (b"NaN", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"1e999", "1e999 is too large"),
    ],
)
def test_refusals(text, said):
    with pytest.raises(InputError, match=rf"^here: .*{said}") as refused:
        parse_json(text, "here", finite=True)
    assert len(str(refused.value)) < 300


def test_what_others_write_may_be_infinite():
    assert parse_json(b'{"time_step_limit": [0.0, Infinity]}', "config.json")["time_step_limit"][1] == float("inf")


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"[[[]]],", b'"abc",', b"1.5,", b"1234,", b'{"a":0},'])
def test_the_weight_of_a_text_bounds_the_memory_it_takes(piece):
    text = b"[" + piece * 20_000 + b"0]"
    tracemalloc.start()
    parse_json(text, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= limits.json_weight(text) <= 4 * peak


def test_a_text_that_would_fill_the_memory_is_refused_before_it_does():
    with pytest.raises(InputError, match="bytes of memory as JSON, more than a description may"):
        parse_json(b"[" + b"[]," * 5_000_000 + b"0]", "bomb.json")


def test_half_characters_are_written_as_escapes():
    text = writable(json.dumps(["\ud800x", "é", "a\u2028b\x9b\u202e"], ensure_ascii=False))
    assert text == '["\\ud800x", "é", "a\\u2028b\\u009b\\u202e"]'
    assert json.loads(text.encode()) == ["\ud800x", "é", "a\u2028b\x9b\u202e"]


def test_no_more_of_a_file_is_read_than_it_may_hold(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 11)
    assert limits.read_small(tmp_path / "f", most=11) == b"x" * 11
    with pytest.raises(InputError, match="is larger than 10 bytes"):
        limits.read_small(tmp_path / "f", most=10)
    with pytest.raises(InputError, match="/dev/zero: is larger than"):
        limits.read_small("/dev/zero", most=1000)
