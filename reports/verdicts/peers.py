"""The tools next door on the planted damage: which of them say anything that they do not say of the sound rows?

    python reports/verdicts/peers.py           (makes a virtual environment of its own in runs/peers; some minutes)

Each tool gets the first 8,192 rows of SmolLM2-135M (vecscope compares all pairs) with the same damage planted, in bfloat16 values, and
is judged by its own words: a case is seen if a finding, verdict or warning appears that the sound rows do not get. The indicators of
magikarp (Land & Bartolo 2024) are its formulas; a row is seen if it is among the 2 % that magikarp would try by prompts.
Writes peers.json, and the table in peers.md.
"""

import json
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROWS = 8192
PACKAGES = ("model-clinic==0.4.2", "vecscope==0.2.0", "weightwatcher==0.7.7")
CANDIDATES = 0.02


def environment(folder: Path) -> Path:
    """A virtual environment with the peers, which sees the packages of this one (torch above all)."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES, "powerlaw", "pandas", "mpmath"], check=True
        )
        site = next(folder.glob("lib/python3*/site-packages"))
        spec = find_spec("torch")
        assert spec is not None and spec.origin is not None
        seen = [str(Path(spec.origin).parents[1]), str(HERE.parents[1]), str(HERE)]
        (site / "shared.pth").write_text("\n".join(seen) + "\n")
    return python


def model_clinic(rows) -> set[str]:
    from model_clinic import diagnose

    return {finding.condition for finding in diagnose({"model.embed_tokens.weight": rows}, plugins=False)}


def vecscope(rows) -> set[str]:
    from vecscope import audit

    try:
        evidence = audit(rows.numpy())
    except ValueError as error:
        return {str(error)}
    return {f"{finding.name} {finding.verdict}" for finding in evidence.findings if finding.verdict != "ok"}


def weightwatcher(rows) -> set[str]:
    import contextlib
    import io
    import logging

    import torch
    import weightwatcher

    logging.disable(logging.CRITICAL)
    layer = torch.nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    layer.weight.data = rows
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            details = weightwatcher.WeightWatcher(model=torch.nn.Sequential(layer)).analyze()
        except Exception as error:
            return {f"{type(error).__name__}: {error}"}
    if not len(details):
        return {"an empty table"}
    return {str(value) for value in details["warning"] if value} | {f"status {value}" for value in details["status"] if value != "success"}  # fmt: skip


def magikarp(rows, ids, padding: int) -> bool:
    """Whether all planted rows are among the 2 % nearest to the unused rows, or of the least norm."""
    import torch

    wide = rows.double()
    unused = wide[-padding:].mean(0)
    indicators = (1 - torch.cosine_similarity(wide, unused[None], dim=1), wide.norm(dim=1))
    count = int(CANDIDATES * len(rows))
    return any(set(ids) <= set(values[:-padding].argsort()[:count].tolist()) for values in indicators)


def gti(rows, names) -> set[str]:
    """Ours on the same rows, without a tokenizer but with the padding known."""
    import torch

    from gti_diag.analysis.row_facts import read_facts
    from gti_diag.analysis.scan_findings import MatrixFacts, find
    from gti_diag.checkpoint import Matrix

    matrix = Matrix("rows", tuple(rows.shape), "bfloat16", lambda ids: rows[ids].bfloat16())
    facts = read_facts(matrix, unused=names, progress=lambda stage, share: None)
    found = find(MatrixFacts(matrix, facts, names, torch.empty(0, dtype=torch.long)))
    return {f"{len(f.ids)} {f.kind}" for f in found}  # the sound rows have a cluster of their own


def compare(source: Path) -> list[dict]:
    import torch
    from planted import CASES, EMBEDDING, PADDING, padded
    from safetensors.torch import load_file

    plain = padded(load_file(source / "model.safetensors")[EMBEDDING][:ROWS].float()).bfloat16().float()
    unused = torch.arange(len(plain) - PADDING, len(plain))
    tools = {"model-clinic": model_clinic, "vecscope": vecscope, "WeightWatcher": weightwatcher, "gti-diag scan": lambda rows: gti(rows, unused)}  # fmt: skip
    before = {name: tool(plain) for name, tool in tools.items()}
    results = []
    for number, case in enumerate(CASES):
        rows = plain.clone()
        ids = case.plant(rows, torch.Generator().manual_seed(number))
        rows = rows.bfloat16().float()
        found = {name: sorted(tool(rows) - before[name]) for name, tool in tools.items()}
        known = magikarp(rows, ids, PADDING) if bool(torch.isfinite(rows).all()) else False
        found["magikarp's indicators"] = ["among the candidates"] if known else []
        results.append({"case": case.name, "found": found})
        print(results[-1], flush=True)
    return [{"case": "sound rows", "found": {name: sorted(words) for name, words in before.items()}}, *results]


def page(results: list[dict]) -> str:
    tools = list(results[-1]["found"])
    lines = ["# The tools next door on planted damage", "", "`python reports/verdicts/peers.py` makes this page: new words beside those about the sound rows.", "",
             "| planted | " + " | ".join(tools) + " |", "| --- " * (1 + len(tools)) + "|"]  # fmt: skip
    for row in results:
        cells = ["; ".join(row["found"].get(tool, []))[:120] or "–" for tool in tools]
        lines.append("| " + " | ".join([row["case"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/scan")
    if "--inside" not in sys.argv:
        from scan import smollm2

        smollm2(work)
        python = environment(work / "peers")
        subprocess.run([python, __file__, str(work), "--inside"], check=True)
        return
    results = compare(work / "SmolLM2-135M-Instruct")
    (HERE / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "peers.md").write_text(page(results))


if __name__ == "__main__":
    main()
