"""The gate: is this checkpoint as a policy wants it, and no worse than its baseline?"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gti_diag.analysis.diagnosis import diagnose
from gti_diag.checkpoint import Checkpoint
from gti_diag.document import read
from gti_diag.errors import InputError
from gti_diag.foreign import shown

from .agreement import agreements
from .baseline import DIGITS, comparable, read_baseline
from .causes import likely, steps
from .policy import Policy, Rule, read_policy
from .scalars import Number, numbers

SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One rule and how it came out: `fail`, `pass`, `warn` (found, and nobody asked that it fail), or `skip` where there was
    nothing to compare. What failed says its probable cause, what to do, and how to check that it worked."""

    status: str
    matrix: str
    measure: str
    expected: str
    got: str
    cause: str | None = None
    action: str | None = None
    verify: str | None = None

    def __str__(self) -> str:
        line = f"{self.matrix} {self.measure}: expected {self.expected}, got {self.got}"
        return shown(f"{line}; likely cause: {self.cause}" if self.cause else line)

    @property
    def steps(self) -> str:
        """Cause, action and check, a line each; those that are known."""
        named = {"likely cause": self.cause, "to do": self.action, "check": self.verify}
        return "\n".join(shown(f"{name}: {text}") for name, text in named.items() if text)


@dataclass(frozen=True)
class Findings:
    """All rules that were tried on one checkpoint."""

    checkpoint: str
    policy: str
    baseline: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.status == "fail")

    @property
    def passed(self) -> bool:
        return not self.failures

    def document(self) -> dict:
        """As a plain dict, with a schema number."""
        return {"schema": SCHEMA, "passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        tried = sum(finding.status != "skip" for finding in self.findings)
        against = f"policy {self.policy}" + (f" and {self.baseline}" if self.baseline else ", no baseline")
        if self.passed:
            return shown(f"{self.checkpoint}: passed {tried} checks ({against})")
        head = shown(f"{self.checkpoint}: {len(self.failures)} of {tried} checks failed ({against})")
        return "\n".join([head, *(f"  {finding}" for finding in self.failures)])


def check(
    checkpoint: Mapping[str, Any] | Checkpoint | str | Path,
    *,
    baseline: Mapping[str, Any] | str | Path | None = None,
    policy: Policy | str | Path = "default",
    **options: Any,
) -> Findings:
    """Hold a checkpoint against a policy and, if given, a baseline.

    Args:
        checkpoint: an analysis, the path of an analysis.json, or what `diagnose` takes.
        baseline: what `baseline` returned, or the file it was written to.
        policy: the name of a shipped policy (default, strict) or a TOML file.
        options: those of `diagnose`, for a checkpoint that has yet to be analysed.

    Raises:
        InputError: as `diagnose`; no new tokens to judge; a policy or baseline that cannot be used; a baseline taken
            under settings that make the numbers incomparable; or no rule that applies.
    """
    rules = policy if isinstance(policy, Policy) else read_policy(policy)
    before = baseline if baseline is None or isinstance(baseline, Mapping) else read_baseline(baseline)
    found = analysis_of(checkpoint, **options)
    name = None if baseline is None else "baseline" if isinstance(baseline, Mapping) else str(baseline)
    notes = [alarm["text"] for alarm in _alarms(found) if not alarm["fails"]]
    notes += agreements(found)
    if not _has_new(found):
        before = None  # tokens without a row have no numbers to compare
    if before is not None:
        notes += comparable(before, found, name or "baseline")
    tried = tuple(_findings(found, before, rules))
    if all(finding.status == "skip" for finding in tried):
        raise InputError(
            f"{found['checkpoint']['path']}: nothing was checked: policy {rules.name} has no rule that applies "
            + ("without a baseline; give --baseline" if before is None else "to it; give rules for what it has")
        )
    return Findings(
        checkpoint=found["checkpoint"]["path"], policy=rules.name, baseline=name, findings=tried, notes=tuple(notes)
    )


def analysis_of(checkpoint: Mapping[str, Any] | Checkpoint | str | Path, **options: Any) -> dict:
    """The analysis itself, read from an analysis.json, or made now; it must have new tokens, or an alarm that fails.

    Raises:
        InputError: as `diagnose` and `document.read`; several analyses in the file; no new tokens.
    """
    if isinstance(checkpoint, Mapping):
        found = dict(checkpoint)
    elif isinstance(checkpoint, (str, Path)) and str(checkpoint).endswith(".json") and Path(checkpoint).is_file():
        several = read(checkpoint)
        if len(several) != 1:
            raise InputError(f"{checkpoint} holds {len(several)} analyses: check one at a time")
        found = several[0]
    else:
        found = diagnose(checkpoint, exhibits=False, **options)
    if not _has_new(found) and not any(alarm["fails"] for alarm in _alarms(found)):
        raise InputError(
            f"{found['checkpoint']['path']}: no new tokens to check ({found['tokens']['rule']}); name them with --new or --base"
        )
    return found


def _has_new(analysis: Mapping[str, Any]) -> bool:
    return bool((analysis["tokens"]["groups"].get("new") or {}).get("count"))


def _alarms(analysis: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(analysis["tokens"].get("alarms") or ())


# --- rules ----------------------------------------------------------------------------------------------------------


def _findings(analysis: Mapping[str, Any], before: Mapping[str, Any] | None, policy: Policy) -> Iterator[Finding]:
    path = analysis["checkpoint"]["path"]
    for alarm in _alarms(analysis):
        if alarm["fails"]:
            yield Finding("fail", "input", alarm["kind"], "none", alarm["text"], **steps(alarm["kind"], path))
    if not policy.allow_untied:
        yield _tie(analysis["checkpoint"], None if before is None else before["checkpoint"])
    for name, matrix in analysis["matrices"].items():
        now = numbers(matrix)
        stored = None if before is None else _stored(before, name)
        was = {key: Number(**entry) for key, entry in stored["measures"].items()} if stored else {}
        if policy.verdict_not:
            yield _verdict(name, matrix, policy, now, was, path)
        for rule in policy.rules:
            if rule.matrix in (None, name):
                _known(rule.measure, now, policy)
                for finding in _tried(rule, now, None if before is None else was):
                    if finding.status == "fail":
                        finding = replace(finding, **likely(rule.measure, now, was, matrix, path))
                    yield replace(finding, matrix=name)


def _stored(before: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The baseline's numbers of a matrix; of a head that was the input matrix then (tied), those of the input."""
    return before["matrices"].get(name) or (before["matrices"].get("input") if before["checkpoint"]["tied"] else None)


def _tie(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Finding:
    note = next((note for note in now.get("notes") or () if note.startswith("silently untied")), None)
    words = {True: "tied", False: "untied", None: "unknown"}
    was = None if before is None else before["tied"]
    expected = "as the config says" if was is None else f"as the config says, {words[was]}"
    if note is not None:
        return Finding("fail", "head", "tied", expected, note, **steps("untied", now["path"]))
    changed = was is not None and now["tied"] is not None and was != now["tied"]
    why = steps("untied" if was else "retied", now["path"]) if changed else {}
    return Finding("fail" if changed else "pass", "head", "tied", expected, words[now["tied"]], **why)


def _verdict(name: str, matrix: Mapping[str, Any], policy: Policy, now, was, path: str) -> Finding:
    verdict = matrix["verdict"]
    expected = f"not {', '.join(policy.verdict_not)}"
    why = "; ".join(reason["text"] for reason in verdict["reasons"])
    label = verdict["label"] or "no verdict"
    got = f"{label} ({why})" if why else label
    if verdict["label"] is not None and verdict["label"] not in policy.verdict_not:
        return Finding("pass", name, "verdict", expected, got)
    return Finding("fail", name, "verdict", expected, got, **likely("verdict", now, was, matrix, path))


def _known(measure: str, now: Mapping[str, Number], policy: Policy) -> None:
    group = measure.split(".")[0]
    if measure in now or not any(name.startswith(group + ".") for name in now):
        return  # a whole part may be missing (no reference, no base, no reserved rows)
    near = difflib.get_close_matches(measure, now, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see the measures in a baseline file"
    raise InputError(f"policy {policy.name}: {measure!r} is no measure of this checkpoint; {hint}")


def _tried(rule: Rule, now: Mapping[str, Number], was: Mapping[str, Number] | None) -> Iterator[Finding]:
    """One finding for each bound of a rule; the caller fills in matrix and cause. `was` is None without a baseline.

    What a rule asks for and nobody measured fails: a gate that is open where it cannot see guards nothing.
    """
    number, before = now.get(rule.measure), (was or {}).get(rule.measure)
    for bound in ("min", "max", "max_drop", "max_rise", "max_change"):
        limit = getattr(rule, bound)
        if limit is None:
            continue
        missing = Finding("fail", "", rule.measure, f"{bound} {limit:g}", "not measured")
        if number is None and before is None:
            yield replace(missing, status="skip" if rule.if_measured else "fail")
        elif number is None:
            yield replace(missing, got="not measured, but the baseline has it")
        elif bound in ("min", "max"):
            yield _placed(rule, number, window=_window(bound, limit, 0.0))
        elif before is None or before.value is None:
            nothing = f"{_text(number.value)}, nothing in a baseline to compare with"
            kept = was is None or before is not None  # no baseline, or one in which it was undefined
            yield replace(missing, status="skip" if kept else "fail", got=nothing)
        else:
            origin = f" (baseline {before.value:.4g}, {bound} {limit:.3g})"
            yield _placed(rule, number, window=_window(bound, limit, before.value), before=before, origin=origin)


def _window(bound: str, limit: float, before: float) -> tuple[float, float]:
    """Where the value may lie."""
    room = limit * abs(before)
    return {
        "min": (limit, math.inf),
        "max": (-math.inf, limit),
        "max_drop": (before - room, math.inf),
        "max_rise": (-math.inf, before + room),
        "max_change": (before - room, before + room),
    }[bound]


def _placed(
    rule: Rule, number: Number, *, window: tuple[float, float], before: Number | None = None, origin: str = ""
) -> Finding:
    """Whether a value lies in its window, widened by what resampling would move it (and the baseline)."""
    low, high = window
    was = 0.0 if before is None or before.value is None else before.value
    if rule.tolerance is None:
        slack = math.hypot(number.noise, before.noise if before is not None else 0.0)
    else:
        slack = rule.tolerance * abs(number.value or 0.0)
    if high == math.inf:
        allowed = f"at least {low:.4g}"
    else:
        allowed = f"at most {high:.4g}" if low == -math.inf else f"{low:.4g} to {high:.4g}"
    expected = f"{allowed}{origin}" + (f" ± {slack:.2g}" if slack else "")
    if number.value is None:
        got = f"undefined ({number.reason or 'no reason given'})"
        return Finding("fail", "", rule.measure, expected, got)
    slack += abs(was) * 10.0 ** (1 - DIGITS)  # a baseline is rounded: a change in its last digit is none
    got = f"{_text(number.value)} ({(number.value - was) / abs(was):+.1%})" if was else _text(number.value)
    status = "pass" if low - slack <= number.value <= high + slack else "fail"
    return Finding(status, "", rule.measure, expected, got)


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
