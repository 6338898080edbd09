"""What a token's string says of its kind: a code of some family and level, a placeholder, a usual special token."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

# A code token: brackets, a family name, perhaps a level (digits or one letter), a code. `<a_12>`, `<|sid_3|>`,
# `[C1_24]`, `<sid_0_255>`, `<item_9>`, `<s_a_7>`.
CODE = re.compile(
    r"(?:<\|?|\[|\|)(?P<family>[A-Za-z]+(?:[_-][A-Za-z]+)*?)(?:[_-]?(?P<digits>\d+)|[_-](?P<letter>[A-Za-z]))??"
    r"[_:-](?P<code>\d+)(?:\|?>|\]|\|)"
)
# Placeholders that pretraining vocabularies ship: numbered like codes, but not the user's.
PLACEHOLDER = re.compile(
    r"(?:[<\[|]|>>).*(unused|reserved|extra_id|extra|dummy|control|place_?holder(?:_no)?|special|madeupword|pad|blank"
    r"|filler|loc|seg|fim)[_-]?(?:token)?[_-]?\d+(?:_token)?\W*",
    re.IGNORECASE,
)
USUAL_SPECIALS = {
    "<unk>", "<s>", "</s>", "<pad>", "<mask>", "<bos>", "<eos>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]",
    "<|endoftext|>", "<|end_of_text|>",
}  # fmt: skip


def _any(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


# Added tokens that public tokenizers ship for chat, code, tools, media and languages: present before any extension.
# In any brackets: words that may have one of the usual ends, and whole names; in <|…|> alone: words that users choose too.
ENDED = _any("""im fim think tools? tool_calls? tool_responses? tool_outputs? tool_results? tool_content vision image img
    video audio tts tts_text box quad object_ref jupyter jupyter_text jupyter_code jupyter_output jupyter_script file(?=_)
    repo(?=_) bos eos eo[tmsd](?:_id)? pad unk mask cls sep action(?=_(?:start|end)) search(?=_(?:begin|end))""")
ENDS = _any("""start end begin bos eos pad sep hole prefix middle suffix soft token tag name patch context newline break
    placeholder""")
OF = _any(
    "text sentence turn role image video audio prompt prev transcript lm document doc chunk box thought solution file"
)
WHOLE = _any(r"""inst sys ref reponame filename empty_output gh_stars issue_start issue_comment issue_closed commit_before
    commit_msg commit_after pr(?:_[a-z]+)* available_tools system_prompt (?:start|end)_header_id call_id arg_key arg_value
    gmask smask diff_marker startofpiece sop eop begin_audio model_settings nbsp
    finetune_right_pad_id row_\d+_col_\d+ fake_token_around_image global-img intermediate_to_final
    (?-i:NAME|EMAIL|KEY|PASSWORD|IP_ADDRESS)""")
PIPED = _any(r"""user assistant system observation developer start end message channel return constrain call refusal python
    python_tag plugin interpreter translate transcribe nospeech nocaptions notimestamps email_address phone_number ip_address
    email phone code_prefix code_middle code_suffix visual\stoken\s\d+ (?-i:[A-Z_]+_TOKEN) \d+\.\d\d haw yue
    (?-i:[a-z]{2})""")
SHIPPED = re.compile(
    rf"[<\[|]+/?(?:{ENDED}(?:_{ENDS})*|{WHOLE}|(?:begin|start|end)_?of_?{OF})[>\]|]+"
    rf"|<?\|+/?{PIPED}\|+>?"
    r"|(?-i:[a-z]{3}_[A-Z][a-z]{3}|[a-z]{2}_[A-Z]{2}|__[a-z]{2,3}__|>>[A-Z_]+<<)",
    re.IGNORECASE,
)
LEAST_FAMILY = 2  # one lone token is not a code book
LEAST_UNADDED = 16  # a family that no file lists as added must be larger to be believed


def code_like(tokens: Mapping[int, str], *, least: int = LEAST_FAMILY) -> dict[int, tuple[str, str | None]]:
    """Family and level label of every token that is a code of a family of at least `least`."""
    found = {}
    for id, token in tokens.items():
        match = CODE.fullmatch(token)
        if match and not PLACEHOLDER.fullmatch(token):
            found[id] = _family(match)
    sizes = Counter(family for family, _ in found.values())
    return {id: pair for id, pair in found.items() if sizes[pair[0]] >= least}


def _family(match: re.Match[str]) -> tuple[str, str | None]:
    name, level = match["family"], match["digits"] or match["letter"]
    if level is None and len(name) == 1:  # <a_12>: the letter is the level
        return "codes", name
    return name, level


def families(codes: Mapping[int, tuple[str, str | None]]) -> dict[str, list[int]]:
    """Ids by family, the largest family first."""
    found: dict[str, list[int]] = {}
    for id in sorted(codes):
        found.setdefault(codes[id][0], []).append(id)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def level_numbers(labels: Sequence[str | None]) -> list[int] | None:
    """1-based level of each label, in the order of the labels in use; None if one has no label."""
    if not labels or None in labels:
        return None
    numbers = {label: place for place, label in enumerate(_ordered({str(label) for label in labels}), 1)}
    return [numbers[str(label)] for label in labels]


def _ordered(labels: Iterable[str]) -> list[str]:
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdigit() else (1, 0, label))


def plain(token: str) -> str:
    """The token with ASCII bars and underscores in place of DeepSeek's, without blanks around it."""
    return token.strip().replace("｜", "|").replace("▁", "_")


def shipped(token: str) -> bool:
    """Whether the added token is in the list of known ones: a run of blanks is."""
    text = plain(token)
    return not text or text in USUAL_SPECIALS or bool(SHIPPED.fullmatch(text) or PLACEHOLDER.fullmatch(text))


def trailing(added: Mapping[int, str], end: int) -> list[int]:
    """Added tokens at the end of the vocabulary (ids below `end`) that are not in the list of known tokens."""
    found = []
    id = end - 1
    while id in added:
        if not shipped(added[id]):
            found.append(id)
        id -= 1
    return found[::-1]
