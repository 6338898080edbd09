"""summary.md: the verdict first, then the numbers. Fits a GitHub step summary."""

import shlex
from collections.abc import Sequence

from gti_diag.foreign import presentable

from . import left_out, tables
from .scan.markdown import section
from .scan.words import STEPS, outcome
from .tables import escape, github
from .verdicts import VERDICTS
from .view import Analysis, View, alarms, matrices, names, number, similarity, token, views


def summary(analyses: Sequence[Analysis]) -> str:
    """Markdown for one or several analyses."""
    analyses = presentable(list(analyses))
    parts = [f"> **{escape(name)}**: {escape(text)}" for name, texts in alarms(analyses).items() for text in texts]
    for matrix in matrices(analyses):
        shown = views(analyses, matrix)
        if len(matrices(analyses)) > 1:
            parts.append(f"# {matrix.capitalize()} embeddings")
        parts += [_verdict(view) for view in shown]
        if len(shown) == 1:
            parts.append(github(tables.single(shown[0])))
            parts.append(_neighbours(shown[0]))
            parts += [escape(tables.hubs(shown[0])), *_rows(shown[0])]
        else:
            parts.append(github(tables.comparison(analyses, matrix=matrix)))
    parts += [_tokens(analyses), _left_out(analyses), _commands(analyses)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(view: View) -> str:
    label = view.label
    sign = VERDICTS.get(label, VERDICTS[None])["emoji"]
    reasons = [f"- {escape(str(reason.get('text')))}{_evidence(reason)}" for reason in view.reasons]
    advice = view.verdict.get("advice")
    parts = [
        f"## {sign} {escape(view.name)}: {label or 'no verdict'}",
        "\n".join(reasons),
        f"**What to do:** {escape(advice)}" if advice else "",
        _steps(view),
    ]
    return "\n\n".join(part for part in parts if part)


def _steps(view: View) -> str:
    """Cause, action and check of each reason, folded; those that several reasons share once."""
    told = [
        " ".join(f"**{title.capitalize()}:** {escape(reason[key])}." for key, title in STEPS)
        for reason in view.reasons
        if all(reason.get(key) for key, _ in STEPS)
    ]
    lines = [f"- {line}" for line in dict.fromkeys(told)]
    return (
        "\n".join(["<details><summary>Causes, actions, checks</summary>", "", *lines, "", "</details>"])
        if lines
        else ""
    )


def _evidence(reason: dict) -> str:
    """` (effective_rank 1.00, expected at least 30)`."""
    if reason.get("value") is None:
        return ""
    expected = f", expected {escape(str(reason['expected']))}" if reason.get("expected") is not None else ""
    return f" (`{reason.get('measure')}` {number(reason['value'])}{expected})"


def _rows(view: View) -> list[str]:
    """The scan of all rows, in short."""
    found = view.body.get("scan")
    return [f"### Every row: {outcome(found)}", section(found, top=4)] if found else []


def _neighbours(view: View, count: int = 6) -> str:
    """The nearest text tokens of a few new tokens, spread over the codes."""
    entries = [entry for entry in view.body.get("neighbours") or [] if entry.get("nearest")]
    if not entries:
        return ""
    chosen = entries[:: max(1, len(entries) // count)][:count]
    rows = [
        (
            token(entry["token"], 24),
            ", ".join(f"{token(near['token'])} {similarity(near['cosine'])}" for near in entry["nearest"][:4]),
        )
        for entry in chosen
    ]
    lines = ["| new token | nearest text tokens (cosine) |", "| --- | --- |"]
    return "\n".join(lines + [f"| {escape(name)} | {escape(near)} |" for name, near in rows])


def _tokens(analyses: Sequence[Analysis]) -> str:
    lines = []
    for name, analysis in zip((view.name for view in _any(analyses)), analyses, strict=False):
        tokens = analysis.get("tokens") or {}
        notes = [*(tokens.get("notes") or []), *((analysis.get("checkpoint") or {}).get("notes") or [])]
        lines += [f"- {escape(name)}: {escape(str(text))}" for text in [tokens.get("rule"), *notes] if text]
    return "### How the tokens were found\n\n" + "\n".join(lines) if lines else ""


def _any(analyses: Sequence[Analysis]) -> list[View]:
    return [View(name, "", {}, analysis) for name, analysis in zip(names(analyses), analyses, strict=True)]


def _left_out(analyses: Sequence[Analysis]) -> str:
    reasons = left_out(analyses)
    if not reasons:
        return ""
    return "### Left out\n\n" + "\n".join(f"- {name}: {escape(reason)}" for name, reason in reasons.items())


def _commands(analyses: Sequence[Analysis]) -> str:
    commands = dict.fromkeys(shlex.join(analysis["command"]) for analysis in analyses if analysis.get("command"))
    versions = (analyses[0].get("versions") or {}) if analyses else {}
    lines = ["```", *commands, "```"] if commands else []
    if versions:
        lines.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return "\n".join(lines)
