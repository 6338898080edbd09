"""JSON that others wrote, read within limits; JSON of ours, written so that everyone can read it."""

import json
import math
import re
from typing import Any

from gti_diag.errors import InputError, bad

from .limits import DESCRIPTION, json_weight

LONGEST_NUMBER = 64  # digits; tokenizers write 10^30 for "no limit"
# What JSON may hold as it is, and UTF-8 cannot (half characters), or a terminal obeys, or `splitlines` takes for the end of a line.
UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_json(data: bytes, where: object, *, finite: bool = False) -> Any:
    """The value of a JSON text: UTF-8, no key twice, no absurd nesting, size or number; `finite` refuses NaN and Infinity too.

    Raises:
        InputError: anything else.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"key {double!r} twice")
        return found

    def whole(digits: str) -> int:
        if len(digits) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(digits):,} digits")
        return int(digits)

    def real(digits: str) -> float:
        if finite and not math.isfinite(float(digits)):
            raise ValueError(f"{digits[:20]} is too large for a number")
        return float(digits)

    def unreal(name: str) -> float:
        if finite:
            raise ValueError(f"{name} is not a number")
        return float(name)

    weight = json_weight(data)
    if weight > DESCRIPTION:
        raise bad(
            where, f"would take {weight:,} bytes of memory as JSON, more than a description may ({DESCRIPTION:,})"
        )
    try:
        hooks: dict[str, Any] = {"parse_int": whole, "parse_constant": unreal} | (
            {"parse_float": real} if finite else {}
        )
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, **hooks)
    except RecursionError as error:
        raise bad(where, "is not usable JSON (nested too deeply)") from error
    except InputError:
        raise
    except ValueError as error:
        raise bad(where, f"is not usable JSON ({error})") from error


def writable(text: str) -> str:
    r"""JSON text that UTF-8 can hold and a terminal can print: half a character (legal in JSON) as its escape, `\ud800`."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
