"""Does `gti-diag check` catch real regressions of SmolLM2-135M, and let harmless changes pass?

    python reports/regressions/run.py [--work runs/regressions] [--items 480] [--only NAME]

Grounds 96 codes once (minutes on two cores; kept in --work), then makes and checks one checkpoint per case. Writes
results.json and the table in README.md beside itself.
"""

import argparse
import json
import logging
import platform
import shutil
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1]))

from cases import HARMLESS, LIMITS, REGRESSIONS, Case, Made, run, saved  # noqa: E402

import gti_diag  # noqa: E402
from gti_diag.gate import findings as gate  # noqa: E402
from gti_diag.gate.baseline import baseline as make_baseline  # noqa: E402
from gti_train.catalogue.world import product_world  # noqa: E402
from gti_train.grounding.ground import GroundingConfig  # noqa: E402
from gti_train.grounding.prompts import grounding_examples  # noqa: E402
from gti_train.model.loading import (  # noqa: E402
    installed_model,
    load_language_model,
    save_language_model,
)
from gti_train.model.vocabulary import extend_checkpoint  # noqa: E402
from gti_train.semantic_ids.making import semantic_ids  # noqa: E402

KINDS = ("title-to-code", "code-to-title")
POLICIES = ("default", "strict")
BATCH = 16
EPOCHS = 1


def prepare(work: Path, items: int) -> Made:
    """The checkpoints that the cases start from; those that are there already are kept."""
    catalogue = product_world(items=items, users=10, seed=0)
    sids = semantic_ids(catalogue, sizes=(48, 24, 24), seed=0)
    examples, others = (grounding_examples(catalogue, sids, kinds=KINDS, seed=seed, words=30) for seed in (0, 1))
    config = GroundingConfig(steps=EPOCHS * len(examples) // BATCH, batch=BATCH, learning_rate=3e-3, seed=0)
    made = Made(*(work / name for name in ("base", "mean", "random", "good32", "good")), examples, others, config)
    if not made.base.exists():
        save_language_model(*load_language_model(installed_model()), made.base)
    for init in ("mean", "random"):
        if not getattr(made, init).exists():
            extend_checkpoint(made.base, work / init, tokens=sids.tokens, levels=sids.levels, init=init, seed=0,
                              codebooks=sids.reference, item_means=sids.item_means, counts=sids.counts.tolist())  # fmt: skip
    if not made.good32.exists():
        run(made, made.good32, compute="float32", dtype="float32")
    if not made.good.exists():
        model, _ = load_language_model(made.good32, dtype=torch.bfloat16)
        saved(model, made.good32, made.good)
    return made


def judged(case: Case, made: Made, baselines: dict[str, dict], work: Path) -> dict:
    """Make the checkpoint of a case, check it under every policy, remove it."""
    out = work / "case"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    case.make(made, out)
    made_in = time.perf_counter() - began
    began = time.perf_counter()
    analysis = gti_diag.diagnose(out, seed=case.seed, reference=made.good / "item_means.safetensors"
                                 if not (out / "item_means.safetensors").exists() else None)  # fmt: skip
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    matrix = analysis["matrices"]["input"]
    new, rsa = matrix["groups"]["new"], matrix["rsa"]
    found = {policy: gate.check(analysis, baseline=baselines[case.name], policy=policy) for policy in POLICIES}
    return {
        "case": case.name,
        "what": case.what,
        "verdict": matrix["verdict"]["label"],
        "dispersion_ratio": new["dispersion_ratio"],
        "effective_rank_centred": new["effective_rank_centred"],
        "rsa": rsa["pearson"]["value"],
        "failures": {policy: [str(f) for f in findings.failures] for policy, findings in found.items()},
        "first": {policy: _first(findings) for policy, findings in found.items()},
        "made_seconds": round(made_in, 1),
        "analysis_seconds": round(seconds, 1),
    }


def _first(findings: gate.Findings) -> dict | None:
    if findings.passed:
        return None
    first = findings.failures[0]
    return {"measure": f"{first.matrix} {first.measure}", "cause": first.cause}


def table(results: dict) -> str:
    lines = [
        "# Does the gate catch regressions, and only regressions?",
        "",
        f"{results['model']}, {results['tokens']} new tokens, grounded for {results['steps']} steps; made by "
        "`python reports/regressions/run.py` "
        f"(torch {results['torch']}, seed 0). Every case is a checkpoint on disk, checked against the baseline of the grounded one.",
        "",
        f"Baseline: {_numbers(results['baseline'])}. What is caught with the verdict healthy is caught by the comparison with it.",
        "",
    ]
    for kind, title, good in (
        ("regressions", "Regressions, to be caught", "caught"),
        ("harmless", "Harmless changes, to pass", "passes"),
        ("limits", "How little is still caught", ""),
    ):
        lines += [f"## {title}", "", "| case | how it was made | verdict | dispersion | rank | RSA | default | strict | likely cause (first finding) |",
                  "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for row in results[kind]:
            caught = {policy: bool(row["failures"][policy]) for policy in POLICIES}
            if kind == "limits":
                right = {policy: "caught" if caught[policy] else "passes" for policy in POLICIES}
            else:
                right = {p: good if caught[p] == (kind == "regressions") else "**wrong**" for p in POLICIES}
            first = row["first"]["default"] or row["first"]["strict"]
            cause = f"{first['measure']}: {first['cause']}" if first else ""
            shown = [row["case"], row["what"], row["verdict"], *_cells(row), right["default"], right["strict"], cause]
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in shown) + " |")
        lines.append("")
    return "\n".join(lines)


def _cells(row: dict) -> list[str]:
    names = ("dispersion_ratio", "effective_rank_centred", "rsa")
    return ["–" if row[name] is None else f"{row[name]:.3g}" for name in names]


def _numbers(row: dict) -> str:
    dispersion, rank, rsa = _cells(row)
    return f"dispersion {dispersion} of the vocabulary's, centred effective rank {rank}, RSA {rsa}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/regressions"))
    parser.add_argument("--items", type=int, default=480)
    parser.add_argument("--only", help="redo the cases whose name contains this, keep the other results")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    made = prepare(options.work, options.items)
    good = gti_diag.diagnose(made.good)
    usual, wide = make_baseline(good), make_baseline(gti_diag.diagnose(made.good32))
    matrix = good["matrices"]["input"]
    results = {
        "model": "SmolLM2-135M-Instruct",
        "tokens": matrix["groups"]["new"]["count"],
        "steps": made.config.steps,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "baseline": {
            "dispersion_ratio": matrix["groups"]["new"]["dispersion_ratio"],
            "effective_rank_centred": matrix["groups"]["new"]["effective_rank_centred"],
            "rsa": matrix["rsa"]["pearson"]["value"],
        },
    }
    file = HERE / "results.json"
    kept = json.loads(file.read_text()) if options.only and file.exists() else {}
    kinds = {"regressions": REGRESSIONS, "harmless": HARMLESS, "limits": LIMITS}
    for kind, cases in kinds.items():
        rows = {row["case"]: row for row in kept.get(kind, [])}
        for case in cases:
            if options.only and options.only not in case.name:
                continue
            baselines = {case.name: wide if case.name == "float32 to bfloat16" else usual}
            rows[case.name] = row = judged(case, made, baselines, options.work)
            print(kind, case.name, row["verdict"], *_cells(row), f"{row['made_seconds']}+{row['analysis_seconds']} s")
            for policy in POLICIES:
                print(*(f"   {policy}: {line}" for line in row["failures"][policy]), sep="\n", flush=True)
        results[kind] = [rows[case.name] for case in cases if case.name in rows]
    file.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "README.md").write_text(table(results))
    wrong = [row["case"] for kind in ("regressions", "harmless") for row in results[kind]
             if bool(row["failures"]["default"]) != (kind == "regressions")]  # fmt: skip
    print("wrong under the default policy:", wrong or "none")


if __name__ == "__main__":
    main()
