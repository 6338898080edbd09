"""Token strings from the files a tokenizer leaves behind. Plain parsing: no tokenizer is built, no code is run."""

import base64
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from gti_diag.errors import InputError

from .places import Folder, parse_json, whole
from .records import Vocabulary, bad

T = TypeVar("T")
MOST_SPECIALS = 100_000
SPARSEST = 64  # ids may be this many times as many as tokens, and a few thousand more: beyond, an id is damage
SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_vocabulary(folder: Folder, *, stem: str | None = None) -> tuple[Vocabulary | None, tuple[str, ...]]:
    """The vocabulary of a checkpoint folder (None if there is none), and a note on each file that cannot be read.

    The base comes from the first file of `BASES` that can be read; added and special tokens from every file that lists
    them. Weights do not need their tokens' names: a file that is damaged, or of another kind, costs these and no more.
    `stem` is the name of an array without its ending: a list `stem.txt` or `stem.json` beside it comes first.
    """
    names = set(folder.names())
    content = functools.cache(lambda name: _content(folder, name))
    tokens: dict[int, str] = {}
    source, notes = None, []
    for name, parse in _bases(names, stem):
        try:
            found = _parsed(folder.root, name, content, parse)
            if found is not None:
                tokens, source = dict(_possible(found, f"{folder.root}/{name}")), name
                break
        except InputError as error:
            notes.append(f"{error}: its tokens are not known")
    added, special, told = _added(folder.root, _listing(names, source), content)
    notes += told
    if source is None and not added:
        return None, tuple(dict.fromkeys(notes))
    tokens |= added
    specials = frozenset(id for id, token in tokens.items() if token in special)
    made = build(tokens, added=added, special=specials, source=source or "added tokens", where=folder.root)
    return made, tuple(dict.fromkeys(notes))


def build(
    tokens: Mapping[int, str], *, added: Mapping[int, str], special: frozenset[int], source: str, where: str
) -> Vocabulary:
    """A Vocabulary from strings by id; ids without a string become None."""
    _possible(tokens, f"{where}/{source}")
    ordered = tuple(map(tokens.get, range(max(tokens, default=-1) + 1)))
    return Vocabulary(tokens=ordered, added=dict(sorted(added.items())), special=special, source=source)


def _possible(tokens: Mapping[int, str], where: str) -> Mapping[int, str]:
    """The tokens, if their ids can be row numbers."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < SPARSEST * len(tokens) + 300_000:
        raise bad(where, f"has token ids from {min(tokens)} to {max(tokens)}", "the file is damaged")
    return tokens


def _bases(names: set[str], stem: str | None) -> Iterable[tuple[str, Callable[[Any], dict[int, str] | None]]]:
    """Files that may hold the base vocabulary, best first, each with its parser."""
    beside = ((f"{stem}.txt", _lines), (f"{stem}.json", _pieces), (f"{stem}.tokens.txt", _lines))
    yield from ((name, parse) for name, parse in (*beside, *BASES) if name in names)
    yield from ((name, _tiktoken) for name in sorted(names) if name.endswith(".tiktoken"))
    yield from ((name, _pieces) for name in sorted(names) if PIECES.fullmatch(name) and name not in NOT_PIECES)


def _content(folder: Folder, name: str) -> Any:
    """What a parser of this file gets: the value of a JSON file, the bytes of any other."""
    data = whole(folder, name)
    return parse_json(data, f"{folder.root}/{name}") if name.endswith(".json") else data


def _parsed(root: str, name: str, content: Callable[[str], Any], parse: Callable[[Any], T]) -> T:
    try:
        return parse(content(name))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, RuntimeError) as error:
        raise bad(f"{root}/{name}", f"is not a tokenizer file of a known form ({error})") from error


def _tokenizer_json(found: Any) -> dict[int, str]:
    vocab = found["model"]["vocab"]
    if isinstance(vocab, list):  # Unigram: [piece, score] in id order
        return {id: str(entry[0]) for id, entry in enumerate(vocab)}
    return _by_id(vocab)


def _vocab_json(found: Any) -> dict[int, str]:
    """Ids by token, or, under the same name, the whole of a tokenizer (as XTTS ships it)."""
    return _tokenizer_json(found) if _whole(found) else _by_id(found)


def _whole(found: Any) -> bool:
    """Whether this is the JSON of a whole tokenizer, whatever the file is called."""
    return isinstance(found, Mapping) and isinstance(found.get("model"), Mapping) and "vocab" in found["model"]


def _by_id(vocab: Mapping[str, int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for token, id in vocab.items():
        if found.setdefault(_id(id), token) != token:
            raise ValueError(f"tokens {found[_id(id)]!r} and {token!r} have one id, {id}")
    return found


def _id(value: object) -> int:
    if type(value) is str and value.isdecimal() and len(value) < 12:
        return int(value)
    if type(value) is not int:
        raise ValueError(f"token id {value!r} is not a whole number")
    return value


def _tekken(found: Any) -> dict[int, str]:
    specials = {entry["rank"]: entry["token_str"] for entry in found.get("special_tokens") or []}
    first = int(found["config"]["default_num_special_tokens"])
    if not 0 <= first <= MOST_SPECIALS:
        raise ValueError(f"default_num_special_tokens is {first}")
    pieces = found["vocab"][: int(found["config"]["default_vocab_size"]) - first]
    texts = (base64.b64decode(piece["token_bytes"]).decode("utf-8", "replace") for piece in pieces)
    return {**{id: f"<SPECIAL_{id}>" for id in range(first)}, **specials, **dict(enumerate(texts, first))}


def _tiktoken(data: bytes) -> dict[int, str]:
    pairs = (line.split() for line in data.splitlines() if line.strip())
    return {int(rank): base64.b64decode(token, validate=True).decode("utf-8", "replace") for token, rank in pairs}


def _sentencepiece(data: bytes) -> dict[int, str]:
    first = data[:64].split(b"\n", 1)[0].split()
    if len(first) == 2 and first[1].isdigit():  # Llama 3 shipped a tiktoken file under this name
        return _tiktoken(data)
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise ValueError("reading it needs sentencepiece: pip install 'gti-diag[train]'") from None
    model = SentencePieceProcessor(model_proto=data)
    return {id: model.id_to_piece(id) for id in range(model.get_piece_size())}


def _lines(data: bytes) -> dict[int, str]:
    return dict(enumerate(data.decode("utf-8").removesuffix("\n").replace("\r\n", "\n").split("\n")))


def _pieces(found: Any) -> dict[int, str] | None:
    """{"tokens": [...]}, a bare list of strings or a whole tokenizer; anything else is some other JSON file."""
    if _whole(found):
        return _tokenizer_json(found)
    listed = found.get("tokens") if isinstance(found, dict) else found
    if not (isinstance(listed, list) and listed and all(isinstance(token, str) for token in listed)):
        return None
    return dict(enumerate(listed))


BASES = (
    ("tokenizer.json", _tokenizer_json),
    ("vocab.json", _vocab_json),
    ("vocab.txt", _lines),
    ("tekken.json", _tekken),
    ("tokenizer.model", _sentencepiece),
    ("spiece.model", _sentencepiece),
    ("sentencepiece.bpe.model", _sentencepiece),
    ("tokens.txt", _lines),
)
PIECES = re.compile(r".*(tok|vocab|piece).*\.json", re.IGNORECASE)
NOT_PIECES = {"tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"}


def _listing(names: set[str], source: str | None) -> list[str]:
    """The files that may list added or special tokens, the least telling first."""
    usual = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
    return [
        *([source] if source and source.endswith(".json") and source not in usual else []),
        *filter(names.__contains__, usual),
    ]


def _added(
    root: str, files: Iterable[str], content: Callable[[str], Any]
) -> tuple[dict[int, str], set[str], list[str]]:
    """Added tokens by id, the strings that any file calls special, and a note on each file that cannot be read."""
    added: dict[int, str] = {}
    special: set[str] = set()
    notes: list[str] = []
    for name in files:
        try:
            listed, called_special = _parsed(root, name, content, functools.partial(_added_in, name))
            _possible({**added, **listed}, f"{root}/{name}")
        except InputError as error:
            notes.append(f"{error}: its tokens are not known")
        else:
            added |= listed
            special |= called_special
    return added, special, notes


def _added_in(name: str, found: Any) -> tuple[dict[int, str], set[str]]:
    """What one file adds, and what it calls special."""
    special: set[str] = set()
    if name == "added_tokens.json":
        pairs = [(id, token) for token, id in found.items()]
    elif name == "tokenizer.json" or _whole(found):
        pairs = [(entry["id"], entry) for entry in found.get("added_tokens") or []]
    elif name in ("tokenizer_config.json", "special_tokens_map.json"):
        pairs = list((found.get("added_tokens_decoder") or {}).items())
        extra = found.get("additional_special_tokens") or found.get("extra_special_tokens") or []
        listed = [found.get(key) for key in SPECIAL_KEYS]
        listed += list(extra.values()) if isinstance(extra, Mapping) else list(extra)
        special.update(e["content"] if isinstance(e, Mapping) else e for e in listed if e)
    else:
        pairs = []
    added = {}
    for id, entry in pairs:
        token = entry["content"] if isinstance(entry, Mapping) else entry
        if not isinstance(token, str):
            raise TypeError(f"added token {token!r} is not a string")
        added[_id(id)] = token
        if isinstance(entry, Mapping) and entry.get("special"):
            special.add(token)
    return added, special
