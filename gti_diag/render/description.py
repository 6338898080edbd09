"""What `gti-diag inspect` found, as one compact table."""

from typing import Any

from rich.table import Table
from rich.text import Text

from gti_diag.foreign import presentable


def description(found: dict[str, Any]) -> Table:
    """A two-column table of the data of `checkpoint.inspect.describe`."""
    found = presentable(found)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)

    def add(head: str, text: str) -> None:
        table.add_row(Text(head), Text(text))  # as it is: a token such as [/INST] is no markup

    tied = {True: "tied head", False: "separate head", None: "head unknown"}[found["tied"]]
    add("checkpoint", found["path"])
    add("format", f"{found['format']}, {found['tensors']:,} tensors, {tied}")
    for role, matrix in found["matrices"].items():
        rows, dim = matrix["shape"]
        add(role, f"{matrix['tensor']}  {rows:,} × {dim:,} {matrix['dtype']}  {_bytes(matrix['bytes'])}")
    vocabulary = found["vocabulary"]
    if vocabulary:
        counts = f"{vocabulary['size']:,} ids, {vocabulary['added']:,} added, {vocabulary['special']:,} special"
        add("tokenizer", f"{vocabulary['source']}: {counts}")
    else:
        add("tokenizer", "none found: tokens are shown as row numbers")
    if found["sidecar"]:
        add("gti.json", ", ".join(f"{key} {value}" for key, value in found["sidecar"].items() if value is not None))
    for name, group in found["tokens"]["groups"].items():
        add(name, _group(group))
    add("rule", found["tokens"]["rule"])
    add("scan", _scan(found["scan"]))
    for note in found["notes"]:
        add("note", note)
    return table


def _scan(look: dict[str, Any]) -> str:
    """Whether `gti-diag scan` is worth it, in a line."""
    cost = f"gti-diag scan reads {_bytes(look['bytes'])}"
    if look["looked_at"] is None:
        return f"{cost}; no row was looked at here"
    damaged = [f"{look[key]:,} {word}" for key, word in (("zero", "zero"), ("equal", "equal to another")) if look[key]]
    if damaged:
        return f"worth it: of {look['looked_at']:,} rows looked at, {' and '.join(damaged)}; {cost}"
    return f"nothing odd in {look['looked_at']:,} rows looked at; {cost}"


def _group(group: dict[str, Any]) -> str:
    shown = " ".join(f"'{token}'" for token in group["first"])
    if group["last"]:
        shown += " … " + " ".join(f"'{token}'" for token in group["last"])
    levels = f" on {group['levels']} levels {group['level_counts']}" if group["levels"] else ""
    return f"{group['count']:,} tokens{levels}: {shown}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"
