"""Foreign text as it is shown: one visible line, no command, no password; and the same text again when shown again."""

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gti_diag import document
from gti_diag.foreign import presentable, shown, without_secrets

ANY = st.text(
    alphabet=st.one_of(st.characters(), st.characters(categories=["Cs", "Cc", "Cf"]), st.sampled_from(":#[]@/?"))
)


@given(ANY)
@example("::error file=x::boo")
@example("##[error]boo ##vso[task.complete]")
@example("https://me:secret@host/x?sig=abc\n::add-mask::x")
def test_shown_text_is_one_visible_line_and_stays_as_it_is(text):
    found = shown(text)
    assert shown(found) == found
    assert not {unicodedata.category(c) for c in found} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(found.splitlines()) <= 1
    found.encode("utf-8")


@given(st.text(alphabet=st.characters(categories=["L", "N"], exclude_characters="\u3164")))
def test_letters_and_numbers_are_left_as_they_are(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    "text, found",
    [
        ("a\nb\tc\r", "a↵b⇥c␍"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("abc\u202edef", "abc\\u202edef"),
        ("half \ud800", "half \\ud800"),
        ("one\u2028two", "one\\u2028two"),
        ("[/INST] [bold]", "[/INST] [bold]"),
        ("x\n::error file=a::b", "x↵\\u003a:error file=a::b"),
        ("##[error]x", "\\u0023#[error]x"),
        ("std::vector and simplecache::s3://b/k", "std::vector and simplecache::s3://b/k"),
    ],
)
def test_what_is_special_somewhere(text, found):
    assert shown(text) == found


@pytest.mark.parametrize(
    "address, found",
    [
        ("sftp://me:secret@host/p", "sftp://me:***@host/p"),
        ("simplecache::https://me:se@cret@host/p", "simplecache::https://me:***@host/p"),
        ("https://ghp_token@host/p", "https://***@host/p"),
        ("https://h/m?X-Amz-Signature=abc&part=1", "https://h/m?X-Amz-Signature=***&part=1"),
        ("https://h/m?sv=1&sig=a%2Fb#x", "https://h/m?sv=1&sig=***#x"),
        ("s3://bucket/key@2", "s3://bucket/key@2"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
    ],
)
def test_passwords_in_addresses_are_hidden(address, found):
    assert without_secrets(address) == found
    assert shown(f"read {address} there") == f"read {found} there"


def test_long_hostile_text_is_shown_in_linear_time():
    for piece in (
        "a" * 10**6 + "://",
        "?" * 10**6 + "://",
        "x://" * 10**5,
        "x://:" + "a" * 10**6,
        ":" * 10**6,
        "#" * 10**6,
    ):
        assert len(shown(piece)) >= len(piece)


def test_a_document_is_shown_whole_and_written_with_its_own_text():
    value = {"\ud800": ["a\nb", {"n": 1.5, "k": None}], "path": "https://me:secret@h/"}
    assert presentable(value) == {"\\ud800": ["a↵b", {"n": 1.5, "k": None}], "path": "https://me:***@h/"}
    text = document.dumps(value)
    text.encode("utf-8")
    assert json.loads(text) == {**value, "path": "https://me:***@h/"}
