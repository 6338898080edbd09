"""The folder that a quality report leaves: JSON, Markdown, a page and figures, all or none."""

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gti_diag.document import dumps
from gti_diag.files import all_or_none, write_text
from gti_diag.foreign import presentable
from gti_diag.render.style import METADATA, using
from gti_diag.render.tables import Table, escape, github

from . import depth, use, words

FIGURES = (use, depth)
FORMATS = ("png", "svg")


def write(
    documents: Sequence[Mapping[str, Any]], out: str | Path, *, churn: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write one report, or two side by side with their `churn`, to the folder `out`.

    Raises:
        InputError: the folder cannot be written.
    """
    whole = documents[0] if len(documents) == 1 else {"schema": 1, "reports": list(documents), "churn": churn}
    shown, folder = presentable(list(documents)), Path(out)
    texts = {"quality.json": dumps(whole), "quality.md": markdown(shown, churn), "quality.html": page(shown, churn)}
    with all_or_none(folder) as stage:
        written = [write_text(stage / name, text) for name, text in texts.items()]
        for module in FIGURES:
            for suffix in FORMATS:
                path = stage / "figures" / f"{module.NAME}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(_drawn(module, shown, suffix, "paper"))
                written.append(path)
    return [folder / path.relative_to(stage) for path in written]


def markdown(documents: Sequence[Mapping[str, Any]], churn: Mapping[str, Any] | None) -> str:
    """Verdict first, then a table of levels and one of depths for each mapping."""
    parts = []
    for document in documents:
        parts.append(f"## {escape(words.title(document))}: {document['verdict']['label']}")
        parts.append("\n".join(f"- {escape(line)}" for line in words.facts(document)))
        parts.append(_reasons(document))
        parts.append(github(Table(words.LEVELS, (), tuple(words.level_rows(document)))))
        parts.append(github(Table(words.DEPTHS, (), tuple(words.depth_rows(document)))))
        parts.append(_collisions(document))
    if churn:
        rows = tuple((str(d["depth"]), f"{d['kept']:.1%}", _share(d["pairs_kept"])) for d in churn["depths"])
        parts.append(f"## What changes between the two ({churn['items']} common items)")
        parts.append(github(Table(("depth", "same codes", "same pairs together"), (), rows)))
    return "\n\n".join(part for part in parts if part) + "\n"


def page(documents: Sequence[Mapping[str, Any]], churn: Mapping[str, Any] | None) -> str:
    """One document that needs no network."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shared = files("gti_diag.render.html")
    template = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    drawings = [(_drawn(module, documents, "svg", "screen").decode(), module.CAPTION) for module in FIGURES]
    return environment.from_string(template).render(
        documents=documents,
        words=words,
        churn=churn,
        share=_share,
        css=shared.joinpath("report.css").read_text(encoding="utf-8"),
        theme=shared.joinpath("theme.js").read_text(encoding="utf-8"),
        drawings=[(svg[svg.index("<svg") :], caption) for svg, caption in drawings],
    )


def _drawn(module: Any, documents: Sequence[Mapping[str, Any]], suffix: str, style: str) -> bytes:
    with using(style) as look:
        buffer = io.BytesIO()
        figure = module.draw([module.points(document) for document in documents], look)
        figure.savefig(buffer, format=suffix, metadata=METADATA[suffix])
        return buffer.getvalue()


def _reasons(document: Mapping[str, Any]) -> str:
    lines = []
    for reason in words.reasons(document):
        steps = " ".join(f"**{label}:** {escape(reason[key])}." for key, label in words.STEPS)
        lines.append(f"- {escape(reason['text'])} (expected {escape(reason['expected'])}). {steps}")
    return "\n".join(lines)


def _collisions(document: Mapping[str, Any]) -> str:
    groups = document["collisions"]["groups"]
    if not groups:
        return ""
    lines = [
        f"- `{group['code']}`: " + "; ".join(escape(item["title"] or item["item_id"]) for item in group["items"])
        for group in groups
    ]
    return "### Items that share a whole code\n\n" + "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
