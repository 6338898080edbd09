"""Foreign text (a token, a tensor's name, a path, a URL, a field of a sidecar) as text that can be shown anywhere.

What is shown moves no cursor, ends no line, reorders no letters, gives no command to a CI system and tells no password. It is for
people: what machines read (analysis.json) keeps the text itself, without its secrets. Markup belongs to the format: HTML, Markdown,
Rich and XML each escape what is special to them, after this.
"""

import re
from collections.abc import Mapping
from typing import Any

MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
SCHEME = r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}:/{1,2}"  # one slash: what a path makes of two
PASSWORD = re.compile(rf"({SCHEME}[^\s/?#:@]*):[^\s/?#]*@", re.IGNORECASE)
TOKEN_AS_USER = re.compile(r"(?<![a-z0-9+.-])(https?:/{1,2})[^\s/?#:@]+@", re.IGNORECASE)
# Presigned addresses carry their key in the query: X-Amz-Signature, sig, access_token, …
QUERY = re.compile(
    r"([?&;][\w.-]{0,40}(?:sig|signature|token|secret|password|credential|api_?key|access_?key(?:_?id)?)=)[^&;#\s]+",
    re.IGNORECASE,
)
HIDDEN = "***"
# A line that begins so is a command to GitHub's runner, and with `##…[` to it, Azure Pipelines and TeamCity wherever it stands.
# Neutral everywhere: a table may break its line anywhere.
COMMAND = re.compile(
    r":(?=:(?:add-mask|add-matcher|add-path|debug|echo|endgroup|error|group|notice|remove-matcher|save-state|set-env|"
    r"set-output|set-repo-path|internal-set-repo-path|stop-commands|warning)\b)|#(?=#\w{0,20}\[)",
    re.IGNORECASE,
)


def shown(text: object) -> str:
    r"""`text` on one line, every character of it visible: line ends and tabs as ↵ ␍ ⇥, what cannot be seen as `\u202e`.

    Shown text is left as it is: shown(shown(x)) = shown(x).
    """
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else MARKS.get(c) or _code(c) for c in plain)
    plain = without_secrets(plain)
    return COMMAND.sub(lambda found: _code(found[0]), plain) if "::" in plain or "##" in plain else plain


NUMBERS = {float, int, bool, type(None)}


def without_secrets(text: str) -> str:
    """`text` with *** for passwords in addresses, and for signatures and tokens in their queries."""
    if ":/" not in text:
        return text
    hidden = PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    return QUERY.sub(rf"\1{HIDDEN}", TOKEN_AS_USER.sub(rf"\1{HIDDEN}@", hidden))


def presentable(value: Any) -> Any:
    """A JSON value with every string in it, keys too, as it can be shown: what pages, tables and figures are made from."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {presentable(key): presentable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not set(map(type, value)) <= NUMBERS:  # matrices hold a hundred thousand
        return type(value)(presentable(item) for item in value)
    return value


def _code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
