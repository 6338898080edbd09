"""What `gti-diag inspect` found, as one compact table."""

from typing import Any

from rich.table import Table


def description(found: dict[str, Any]) -> Table:
    """A two-column table of the data of `checkpoint.inspect.describe`."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    tied = {True: "tied head", False: "separate head", None: "head unknown"}[found["tied"]]
    table.add_row("checkpoint", found["path"])
    table.add_row("format", f"{found['format']}, {found['tensors']:,} tensors, {tied}")
    for role, matrix in found["matrices"].items():
        rows, dim = matrix["shape"]
        table.add_row(role, f"{matrix['tensor']}  {rows:,} × {dim:,} {matrix['dtype']}  {_bytes(matrix['bytes'])}")
    vocabulary = found["vocabulary"]
    if vocabulary:
        counts = f"{vocabulary['size']:,} ids, {vocabulary['added']:,} added, {vocabulary['special']:,} special"
        table.add_row("tokenizer", f"{vocabulary['source']}: {counts}")
    else:
        table.add_row("tokenizer", "none found: tokens are shown as row numbers")
    if found["sidecar"]:
        table.add_row(
            "gti.json", ", ".join(f"{key} {value}" for key, value in found["sidecar"].items() if value is not None)
        )
    for name, group in found["tokens"]["groups"].items():
        table.add_row(name, _group(group))
    table.add_row("rule", found["tokens"]["rule"])
    for note in found["notes"]:
        table.add_row("note", note)
    return table


def _group(group: dict[str, Any]) -> str:
    shown = " ".join(repr(token) for token in group["first"])
    if group["last"]:
        shown += " … " + " ".join(repr(token) for token in group["last"])
    levels = f" on {group['levels']} levels {group['level_counts']}" if group["levels"] else ""
    return f"{group['count']:,} tokens{levels}: {shown}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"
