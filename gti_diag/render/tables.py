"""Numbers side by side: which measures are shown, how each is written; tables as Markdown and LaTeX."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gti_diag.foreign import shown

from .view import NONE, Analysis, View, interval, matrices, number, p_value, similarity, token, views

Cell = Callable[[View, str], str]


@dataclass(frozen=True)
class Row:
    """One measure: its name for `gti-diag explain`, its title, and its text for a view's group."""

    measure: str
    title: str
    cell: Cell


def measured(name: str, text: Callable[[Any], str] = number) -> Cell:
    """The cell of a group's measure; `–` when the group or the number does not exist."""

    def cell(view: View, group: str) -> str:
        return text(((view.body.get("groups") or {}).get(group) or {}).get(name))

    return cell


def _norm(view: View, group: str) -> str:
    norm = ((view.body.get("groups") or {}).get(group) or {}).get("norm") or {}
    if norm.get("mean") is None:
        return NONE
    return f"{number(norm['mean'])} ± {number(norm['std'])}" if norm.get("std") is not None else number(norm["mean"])


def correlation(entry: dict[str, Any] | None) -> str:
    """`0.40 [0.35, 0.44]`: as much of it as exists."""
    if not entry or entry.get("value") is None:
        return NONE
    bounds = interval(entry.get("interval"))
    return similarity(entry["value"]) + (f" {bounds}" if bounds else "")


def _rsa(statistic: str) -> Cell:
    def cell(view: View, group: str) -> str:
        return correlation((view.body.get("rsa") or {}).get(statistic)) if group == "new" else ""

    return cell


def _significance(statistic: str) -> Cell:
    def cell(view: View, group: str) -> str:
        entry = ((view.body.get("rsa") or {}).get(statistic) or {}) if group == "new" else {}
        return p_value(entry.get("p_value")) or (NONE if group == "new" else "")

    return cell


ROWS = (
    Row("count", "tokens", measured("count")),
    Row("unique_rows", "distinct rows", measured("unique_rows")),
    Row("effective_rank", "effective rank", measured("effective_rank")),
    Row("effective_rank_centred", "effective rank, centred", measured("effective_rank_centred")),
    Row("participation_ratio", "participation ratio", measured("participation_ratio")),
    Row("stable_rank", "stable rank", measured("stable_rank")),
    Row("mean_cosine", "mean cosine", measured("mean_cosine", similarity)),
    Row("dispersion", "dispersion", measured("dispersion")),
    Row("dispersion_ratio", "dispersion / text", measured("dispersion_ratio")),
    Row("norm", "row norm, mean ± sd", _norm),
    Row("rsa_pearson", "RSA, Pearson r", _rsa("pearson")),
    Row("p_value", "  Mantel p", _significance("pearson")),
    Row("rsa_spearman", "RSA, Spearman ρ", _rsa("spearman")),
    Row("p_value", "  Mantel p", _significance("spearman")),
    Row("rsa_centred", "RSA, centred", _rsa("centred")),
    Row("p_value", "  p", _significance("centred")),
    Row("rsa_counts_held", "RSA, counts held", _rsa("counts_held")),
    Row("p_value", "  p", _significance("counts_held")),
)


def band(view: View, measure: str) -> str:
    """The range of a measure over text samples of the new group's size, `low to high`."""
    found = ((view.body.get("null") or {}).get("measures") or {}).get(measure) or {}
    if found.get("low") is None or found.get("high") is None:
        return ""
    return f"{number(found['low'])} to {number(found['high'])}"


def hubs(view: View) -> str:
    """Which new tokens are near everything, in a sentence; nothing where it was not looked at."""
    found = view.body.get("hubs")
    if not found or not found["hubs"]:
        return ""
    named = ", ".join(f"{token(hub['token'], 24)} {hub['count']:,}" for hub in found["hubs"][:5])
    return (
        f"Most often among the {found['k']} rows nearest to {found['queries']:,} new tokens (on average {number(found['mean'])} times): {named}; "
        f"never: {found['never']:,} new tokens. {found['new_share']:.0%} of the nearest rows are new."
    )


@dataclass(frozen=True)
class Table:
    header: tuple[str, ...]
    measures: tuple[str, ...]  # of each row
    rows: tuple[tuple[str, ...], ...]


def groups(view: View) -> list[str]:
    """The groups worth a column: new, then text, then whatever else was found."""
    found = list(view.body.get("groups") or {})
    return sorted(found, key=lambda name: ({"new": 0, "text": 1}.get(name, 2), name))


def single(view: View) -> Table:
    """One checkpoint: a column per group and the text band. Rows without a single number are dropped."""
    columns = groups(view)
    has_band = bool((view.body.get("null") or {}).get("measures"))
    rows = []
    for row in ROWS:
        cells = [row.cell(view, group) for group in columns] + ([band(view, row.measure)] if has_band else [])
        if any(cell not in ("", NONE) for cell in cells):
            rows.append((row.measure, (row.title, *cells)))
    header = ("measure", *columns, *(["text samples"] if has_band else []))
    return Table(header, tuple(measure for measure, _ in rows), tuple(cells for _, cells in rows))


def comparison(analyses: Sequence[Analysis], *, matrix: str = "input", group: str = "new") -> Table:
    """Several checkpoints: a row per measure of one group, a column per checkpoint, the verdict first.

    Without a single token of `group` anywhere the text group is compared instead.
    """
    shown = views(analyses, matrix)
    if not any((view.body.get("groups") or {}).get(group) for view in shown):
        group = "text"
    rows = [("verdict", ("verdict", *(view.label or NONE for view in shown)))] if group == "new" else []
    for row in ROWS:
        cells = tuple(row.cell(view, group) for view in shown)
        if any(cell not in ("", NONE) for cell in cells):
            rows.append((row.measure, (row.title, *cells)))
    header = (f"{group} tokens", *(view.name for view in shown))
    return Table(header, tuple(measure for measure, _ in rows), tuple(cells for _, cells in rows))


def more(shown: Sequence[View]) -> Table:
    """Every other number of the groups: a column per group of one checkpoint and the text band, or a column per checkpoint
    for the new tokens."""
    if len(shown) == 1:
        columns = [(group, (shown[0].body.get("groups") or {})[group]) for group in groups(shown[0])]
    else:
        columns = [(view.name, (view.body.get("groups") or {}).get("new") or {}) for view in shown]
    known = {row.measure for row in ROWS}
    scalar = {
        name: None
        for _, values in columns
        for name, value in values.items()
        if name not in known and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    bands = {name: band(shown[0], name) for name in scalar} if len(shown) == 1 else {}
    header = ("measure", *(name for name, _ in columns), *(["text samples"] if any(bands.values()) else []))
    rows = tuple(
        (name.replace("_", " "), *(number(values.get(name)) for _, values in columns), bands.get(name, ""))[
            : len(header)
        ]
        for name in scalar
    )
    return Table(header, tuple(scalar), rows)


def markdown(analyses: Sequence[Analysis]) -> str:
    """The comparison as a GitHub table; one per matrix."""
    return "\n\n".join(github(comparison(analyses, matrix=matrix)) for matrix in matrices(analyses)) + "\n"


def github(table: Table) -> str:
    """A GitHub-flavoured table, numbers flush right."""
    rule = "| " + " | ".join(["---", *("---:" for _ in table.header[1:])]) + " |"
    header, *rows = ("| " + " | ".join(map(escape, line)) + " |" for line in (table.header, *table.rows))
    return "\n".join([header, rule, *rows])


def escape(text: str) -> str:
    """Text that Markdown shows as it is: a token may hold pipes, stars, tags or backticks."""
    return re.sub(r"([\\`*_\[\]<>|~#$])", r"\\\1", shown(text)).replace("&", "&amp;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "ρ": r"$\rho$",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is, indented where it is."""
    text = shown(text)
    indent = r"\quad " if text.startswith("  ") else ""
    return indent + "".join(_LATEX.get(character, character) for character in text.strip())


def latex(analyses: Sequence[Analysis]) -> str:
    """The comparison as a `tabular` with booktabs rules; one per matrix."""
    blocks = []
    for matrix in matrices(analyses):
        table = comparison(analyses, matrix=matrix)
        lines = [" & ".join(map(latex_text, line)) + r" \\" for line in (table.header, *table.rows)]
        blocks.append(
            "\n".join(
                [
                    f"% {matrix} embeddings; needs \\usepackage{{booktabs}}",
                    r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}",
                    r"\toprule",
                    lines[0],
                    r"\midrule",
                    *lines[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"
