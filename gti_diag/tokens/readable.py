"""Token strings as a person reads them."""

from collections.abc import Callable, Sequence

from gti_diag.checkpoint import Vocabulary


def display(vocabulary: Vocabulary | None, rows: int) -> list[str]:
    """Readable string of every row: byte-level "Ġthe" and sentencepiece "▁the" become " the"; "#7" where there is none."""
    tokens = vocabulary.tokens[:rows] if vocabulary is not None else ()
    added = vocabulary.added if vocabulary is not None else {}
    read = _reader([token for id, token in enumerate(tokens) if token and id not in added])
    found = [f"#{id}" if t is None else t if id in added else read(t) for id, t in enumerate(tokens)]
    return found + [f"#{id}" for id in range(len(found), rows)]


def word(token: str) -> str:
    """A token within a sentence: as it is, or quoted where blanks or line breaks would be mistaken for the sentence's."""
    return token if token.isprintable() and token.strip() == token != "" else repr(token)


def listed(tokens: Sequence[str], *, shown: int = 5) -> str:
    """The first tokens within a sentence."""
    return ", ".join(map(word, tokens[:shown])) + (", …" if len(tokens) > shown else "")


def _reader(tokens: list[str]) -> Callable[[str], str]:
    if any(token.startswith("Ġ") for token in tokens):
        return _from_bytes
    if any(token.startswith("▁") for token in tokens):
        return lambda token: token.replace("▁", " ")
    return lambda token: token


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes. Source: https://github.com/openai/gpt-2 encoder.py bytes_to_unicode."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()
_LATIN = str.maketrans(
    {char: chr(byte) for char, byte in _BYTES.items()} | {chr(n): chr(256) for n in range(256) if chr(n) not in _BYTES}
)


def _from_bytes(token: str) -> str:
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    try:
        return token.translate(_LATIN).encode("latin-1").decode("utf-8", errors="replace")
    except UnicodeEncodeError:  # a character that stands for no byte
        return token
