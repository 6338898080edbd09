"""The plain dict of analysis.json, seen by whoever draws it: names, groups, tokens, numbers as text.

Nothing here computes a measure. A part that an analysis lacks is a `Missing` with the reason, which callers
turn into a figure left out and a line that says why.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gti_diag.foreign import shown

Analysis = dict[str, Any]
NONE = "–"


class Missing(LookupError):
    """An analysis lacks the part that a figure or table shows; the message is the reason."""


@dataclass(frozen=True)
class View:
    """One matrix of one analysis under a name that is unique among the analyses shown together."""

    name: str
    matrix: str
    body: dict[str, Any]
    analysis: Analysis
    place: int = 0  # among the analyses: keeps a checkpoint's colour the same in every figure

    def part(self, name: str) -> Any:
        """`body[name]`.

        Raises:
            Missing: the part is absent or null.
        """
        found = self.body.get(name)
        if found is None:
            raise Missing(self.reason(name))
        return found

    def group(self, name: str) -> dict[str, Any]:
        """The measures of one token group.

        Raises:
            Missing: no tokens of that group.
        """
        found = (self.body.get("groups") or {}).get(name)
        if not found:
            raise Missing(f"no {name} tokens")
        return found

    def reason(self, name: str) -> str:
        """Why a part is missing: as recorded, else for want of new tokens or of a reference, else unknown."""
        recorded = (self.body.get("undefined") or {}).get(name)
        if recorded:
            return recorded
        if not (self.body.get("groups") or {}).get("new"):
            return "no new tokens"
        known = {"rsa": "no reference vectors were given (--reference)", "hierarchy": "the new tokens have no levels"}
        return known.get(name, f"the analysis has no {name}")

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdict, `{}` when none was given (no new tokens)."""
        return self.body.get("verdict") or {}

    @property
    def label(self) -> str | None:
        return self.verdict.get("label")

    @property
    def reasons(self) -> list[dict[str, Any]]:
        """The reasons of the verdict; then, for each further group of added tokens, its own verdict with its first reason."""
        found = list(self.verdict.get("reasons") or [])
        for group, other in (self.body.get("others") or {}).items():
            first = (other["verdict"].get("reasons") or [{}])[0]
            text = f"{group}: {other['verdict'].get('label')}, {first.get('text', '')}"
            found.append({**first, "text": text.removesuffix(", ")})
        return found

    @property
    def step(self) -> int | None:
        """The training step: as recorded, else the number at the end of a name like `checkpoint-200`."""
        checkpoint = self.analysis.get("checkpoint") or {}
        recorded = checkpoint.get("step", self.analysis.get("step"))
        if recorded is not None:
            return int(recorded)
        named = re.search(r"(?:checkpoint|step|global_step)[-_]?(\d+)$", str(checkpoint.get("name") or ""))
        return int(named.group(1)) if named else None


def names(analyses: Sequence[Analysis]) -> list[str]:
    """The checkpoints' names; equal names get their folders in front, and then numbers.

    A user's names are kept as they are when they already differ.
    """
    found = [_name(analysis) for analysis in analyses]
    if len(set(found)) < len(found):
        paths = [str((analysis.get("checkpoint") or {}).get("path") or "") for analysis in analyses]
        longer = [
            "/".join([*paths[i].replace("\\", "/").rstrip("/").split("/")[-2:-1], name]) for i, name in enumerate(found)
        ]
        found = [long if found.count(name) > 1 else name for name, long in zip(found, longer, strict=True)]
    seen: dict[str, int] = {}
    unique = []
    for name in found:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _name(analysis: Analysis) -> str:
    checkpoint = analysis.get("checkpoint") or {}
    return str(checkpoint.get("name") or str(checkpoint.get("path") or "checkpoint").rstrip("/").split("/")[-1])


def alarms(analyses: Sequence[Analysis]) -> dict[str, list[str]]:
    """What the sizes of each checkpoint say that no measure of its rows shows, by its name; only of those that have some."""
    listed = [[str(alarm["text"]) for alarm in (a.get("tokens") or {}).get("alarms") or ()] for a in analyses]
    return {name: texts for name, texts in zip(names(analyses), listed, strict=True) if texts}


def matrices(analyses: Sequence[Analysis]) -> list[str]:
    """The matrices that at least one analysis has, input first."""
    present = {name for analysis in analyses for name in analysis.get("matrices") or {}}
    return sorted(present, key=lambda name: (name != "input", name))


def views(analyses: Sequence[Analysis], matrix: str = "input") -> list[View]:
    """One view per analysis that has this matrix, in the order given."""
    return [
        View(name, matrix, analysis["matrices"][matrix], analysis, place)
        for place, (name, analysis) in enumerate(zip(names(analyses), analyses, strict=True))
        if (analysis.get("matrices") or {}).get(matrix)
    ]


def number(value: Any, digits: int = 3) -> str:
    """A number as people read it: `digits` significant digits, thousands separated, `–` for none."""
    if value is None or isinstance(value, str):
        return value or NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (float(value).is_integer() and 10**digits <= abs(value) < 1e15):
        return f"{int(value):,}"
    if value == 0:
        return "0"
    if abs(value) < 10**digits:
        value = float(f"{value:.{digits - 1}e}")  # round first: 9.9999 has the magnitude of 10
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3 or magnitude > 9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def similarity(value: float | None) -> str:
    """A cosine or correlation: two decimals, which keep −1 … 1 comparable at a glance."""
    return NONE if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def interval(bounds: Sequence[float | None] | None) -> str:
    """`[low, high]`, or nothing."""
    if not bounds or any(bound is None for bound in bounds):
        return ""
    return f"[{similarity(bounds[0])}, {similarity(bounds[1])}]"


def p_value(value: float | None) -> str:
    """`0.03`, `< 0.001`, or nothing."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def token(text: str | None, width: int = 14) -> str:
    """A token as one short printable word: outer spaces and line breaks marked, long ones cut with `…`."""
    if text is None:
        return NONE
    core = text.strip(" ")
    start = len(text) - len(text.lstrip(" ")) if core else len(text)
    end = len(text) - len(core) - start
    core = re.sub(" {2,}", lambda found: "␣" * len(found[0]), core)  # as long as before
    marked = "␣" * start + core + "␣" * end
    words = shown(marked)
    return words if len(words) <= width else words[: width - 1] + "…"


def level_name(level: int) -> str:
    """`1` → `level 1`, as shown everywhere."""
    return f"level {level}"
