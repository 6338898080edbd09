"""The tables of a study, in Markdown and LaTeX."""

from collections.abc import Sequence

from gti_diag.render.tables import latex_text

from .relation import Relation
from .results import Results, Row


def columns(results: Results) -> list[str]:
    """The metrics that a table shows: recall at every length, NDCG at 10 or the length next to it."""
    ks = results.study["evaluation"]["ks"]
    return [*(f"recall@{k}" for k in ks), f"ndcg@{min(ks, key=lambda k: (abs(k - 10), k))}"]


def outcome(results: Results, rows: Sequence[Row]) -> str:
    """Markdown: every arm and baseline with intervals, and recall's difference from the baseline arm."""
    shown, read = columns(results), compared_by(results)
    base = results.study["baseline"]
    head = ["", "seeds", "users", *(title(name) for name in shown), f"{title(read)} − {base}'s", "p (Holm)"]
    lines = [_line(head), _line(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for row in rows:
        cells = [
            f"{row.values[name]:.3f} [{row.intervals[name][0]:.3f}, {row.intervals[name][1]:.3f}]" for name in shown
        ]
        apart = row.against and row.against[read]
        told = (
            [f"{apart.value:+.3f} [{apart.interval[0]:+.3f}, {apart.interval[1]:+.3f}]", f"{apart.p:.3f}"]
            if apart
            else ["", ""]
        )
        lines.append(_line([row.name, str(row.seeds), str(row.users), *cells, *told]).replace("-0.", "−0."))
    return "\n".join(lines) + "\n"


def outcome_latex(results: Results, rows: Sequence[Row]) -> str:
    """The same for a paper (booktabs): means, half widths of the intervals, a rule between arms and baselines."""
    shown = columns(results)
    lines = [
        r"\begin{tabular}{l" + "r" * len(shown) + "}",
        r"\toprule",
        " & ".join(["", *(title(name) for name in shown)]) + r" \\",
        r"\midrule",
    ]
    for place, row in enumerate(rows):
        if place == len(results.judged):
            lines.append(r"\midrule")
        cells = [
            f"${row.values[name]:.4f} \\pm {(row.intervals[name][1] - row.intervals[name][0]) / 2:.4f}$"
            for name in shown
        ]
        lines.append(" & ".join([latex_text(row.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def geometry(results: Results) -> str:
    """Markdown: what the rows were before fine-tuning and after it, by arm and seed."""
    head = ["", "seed", "verdict", "spread / vocabulary's", "effective rank, centred", "RSA, counts held"]
    lines = [_line(head), _line(["---"] * 3 + ["---:"] * 3)]
    for arm, seeds in results.judged.items():
        for seed, judged in seeds.items():
            before = results.starts.get(judged["start"], {}).get(seed)
            after = results.tuned.get(arm, {}).get(seed)
            if before is None or after is None:
                continue
            pairs = zip(_cells(before), _cells(after), strict=True)
            lines.append(_line([arm, str(seed), *(f"{one} → {other}" for one, other in pairs)]))
    return "\n".join(lines) + "\n"


def relation(found: Sequence[Relation], metric: str) -> str:
    """Markdown: each measure's rank correlation with a metric, at the start and after fine-tuning."""
    by = {(one.measure, one.when): one for one in found}
    lines = [
        _line([f"Spearman's ρ with {title(metric)}", "form", "start", "after fine-tuning"]),
        _line(["---"] * 2 + ["---:"] * 2),
    ]
    for name in dict.fromkeys(one.measure for one in found):
        ways = [by.get((name, when)) for when in ("start", "tuned")]
        form = "corrected" if next(way for way in ways if way).corrected else "raw"
        cells = [f"{way.rho:+.2f} (p {way.p:.3f}, {way.runs} runs)" if way else "–" for way in ways]
        lines.append(_line([name, form, *cells]).replace(" -", " −"))
    return "\n".join(lines) + "\n"


def _cells(analysis: dict) -> list[str]:
    matrix = analysis["matrices"]["input"]
    new, held = matrix["groups"]["new"], ((matrix.get("rsa") or {}).get("counts_held") or {}).get("value")
    numbers = [new.get("dispersion_ratio"), new.get("effective_rank_centred"), held]
    forms = (".3f", ".1f", ".2f")
    return [
        matrix["verdict"].get("label", "–"),
        *("–" if n is None else f"{n:{form}}".replace("-", "−") for n, form in zip(numbers, forms, strict=True)),
    ]


def compared_by(results: Results) -> str:
    """The metric that arms are compared by: recall at 10, or at the length next to it."""
    return f"recall@{min(results.study['evaluation']['ks'], key=lambda k: (abs(k - 10), k))}"


def title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return ("NDCG" if name == "ndcg" else name.capitalize()) + f"@{k}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
