"""Semantic IDs of one catalogue by every quantiser and by other libraries, judged by one report.

    python reports/sids/run.py CATALOGUE --vectors minilm --out reports/sids/results [--codes NAME=FILE …] [--only NAME …]

One JSON a method; a method whose file is there is skipped. `--markdown` prints the table of what is there. The peers
(semantic-id, vector-quantize-pytorch) are needed only for their own rows.
"""

import argparse
import json
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_train.catalogue.reading import open_catalogue
from gti_train.semantic_ids.brought import fitted_to, in_order, read_codes
from gti_train.semantic_ids.making import make_ids
from gti_train.semantic_ids.quality.report import Evidence, quality
from gti_train.semantic_ids.quantiser import Fitted
from gti_train.semantic_ids.quantisers import fit
from gti_train.semantic_ids.vectors import text_vectors

SIZES = (256, 256, 256, 256)


def ours(name: str, **settings) -> Callable[[Tensor], Fitted]:
    return lambda vectors: fit(vectors, quantiser=name, sizes=SIZES, seed=0, **settings)


def semantic_id(kind: str) -> Callable[[Tensor], Fitted]:
    """semantic-id 0.2.5: its own defaults but for the sizes and the seed."""

    def run(vectors: Tensor) -> Fitted:
        import semantic_id as library

        torch.manual_seed(0)
        if kind == "kmeans":
            model = library.RQKMeans(n_levels=4, n_clusters=[256] * 4, random_state=0)
        else:
            model = library.RQVAE(
                in_dim=vectors.shape[1], num_emb_list=[256] * 4, e_dim=32, epochs=300, batch_size=1024
            )
        model.fit(vectors.float().numpy())
        return fitted_to(
            vectors, torch.as_tensor(model.encode(vectors.float().numpy())).long().reshape(len(vectors), -1)
        )

    return run


def faiss_residual(vectors: Tensor) -> Fitted:
    """faiss.ResidualQuantizer with its beam search of 5."""
    import faiss

    quantiser = faiss.ResidualQuantizer(vectors.shape[1], 4, 8)
    rows = vectors.float().contiguous().numpy()
    quantiser.train(rows)
    return fitted_to(vectors, torch.from_numpy(quantiser.compute_codes(rows)).long())


def vector_quantize(vectors: Tensor) -> Fitted:
    """vector-quantize-pytorch's ResidualVQ on the vectors: k-means start, dead codes replaced, 100 passes."""
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(0)
    model = ResidualVQ(
        dim=vectors.shape[1], codebook_size=256, num_quantizers=4, kmeans_init=True, threshold_ema_dead_code=1
    )
    rows = vectors.float()[None]
    model.train()
    for _ in range(100):
        model(rows)
    model.eval()
    return fitted_to(vectors, model(rows)[1][0].long())


METHODS: dict[str, Callable[[Tensor], Fitted]] = {
    "rq-vae": ours("rq-vae"),
    "rq-vae, 80 epochs": ours("rq-vae", epochs=80, warm_epochs=25),
    "rq-vae, no dropout": ours("rq-vae", dropout=0.0),
    "residual-kmeans": ours("residual-kmeans"),
    "balanced-kmeans": ours("balanced-kmeans"),
    "product": ours("product"),
    "fsq": ours("fsq"),
    "faiss-kmeans": ours("faiss-kmeans"),
    "faiss ResidualQuantizer": faiss_residual,
    "vector-quantize-pytorch": vector_quantize,
    "semantic-id RQKMeans": semantic_id("kmeans"),
    "rq-vae, no diversity": ours("rq-vae", diversity=0.0),
    "semantic-id RQVAE": semantic_id("rqvae"),
}


def judged(catalogue, vectors: Tensor, method: Callable[[Tensor], Fitted], name: str, unique: bool) -> dict:
    """The report of codes as they come, and what it costs to make them unique in both ways."""
    ids = [item.id for item in catalogue.items]
    began, spent = time.perf_counter(), time.process_time()
    fitted = method(vectors)
    seconds = {"wall": time.perf_counter() - began, "cpu": time.process_time() - spent}
    plain = make_ids(ids, vectors, fitted)
    report = quality(plain.sids, Evidence(catalogue, vectors, plain.quantiser), name=name)
    report |= {"seconds": seconds, "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    for way in ("assign", "sinkhorn") if unique else ():
        made = make_ids(ids, vectors, fitted, unique=way)
        after = quality(made.sids, Evidence(catalogue, vectors, made.quantiser), name=name)
        kept = ("made", "levels", "prefixes", "collisions", "verdict")
        report[way] = {"moves": made.sids.made["moves"]} | {key: after[key] for key in kept}
    return report


def markdown(folder: Path) -> str:
    """One row a method, from the files of results."""
    lines = [
        "| codes | used by level (of 256) | perplexity by level | items without own code | coherence by depth | "
        "next choice shares 1, 2 codes | error | CPU s | moved by assign (error) | by Sinkhorn (error) |",
        "| --- | --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for file in sorted(folder.glob("*.json")):
        report = json.loads(file.read_text())
        levels, prefixes = report["levels"], report["prefixes"]
        coherence = " ".join("–" if p["coherence"] is None else f"{p['coherence']['value']:.2f}" for p in prefixes)
        choices = " ".join(f"{p['co_occurrence']['value']:.3f}" for p in prefixes[:2] if p["co_occurrence"])
        error = prefixes[-1]["error"]
        cells = [
            report["name"],
            " ".join(f"{level['used']}" for level in levels),
            " ".join(f"{level['perplexity']:.0f}" for level in levels),
            f"{report['collisions']['rate']:.1%}",
            coherence,
            choices,
            "–" if error is None else f"{error:.3f}",
            f"{report['seconds']['cpu']:.0f}" if "seconds" in report else "–",
            *(_moves(report.get(way)) for way in ("assign", "sinkhorn")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _moves(found: dict | None) -> str:
    if found is None:
        return "–"
    rise = found["moves"]["error_rise"]
    return f"{found['moves']['moved']}" + ("" if rise is None else f" ({rise:+.1%})")


def _file(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalogue", type=Path)
    options.add_argument("--vectors", default="minilm", help="encoder, or a file of vectors")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options.add_argument(
        "--codes", nargs="*", default=[], metavar="NAME=FILE", help="codes of others, judged as they are"
    )
    options.add_argument("--only", nargs="*", default=[], metavar="NAME")
    options.add_argument("--markdown", action="store_true", help="print the table and do nothing else")
    asked = options.parse_args()
    if asked.markdown:
        print(markdown(asked.out))
        return
    catalogue = open_catalogue(asked.catalogue).catalogue
    texts = [item.text for item in catalogue.items]
    vectors = text_vectors(texts, encoder=asked.vectors, cache=asked.out / "vectors")
    methods = dict(METHODS)
    for pair in asked.codes:
        name, _, file = pair.partition("=")
        codes = in_order(read_codes(Path(file)), [item.id for item in catalogue.items], Path(file))
        methods[name] = lambda rows, codes=codes: fitted_to(rows, codes)
    for name, method in methods.items():
        file = asked.out / f"{_file(name)}.json"
        if file.exists() or (asked.only and name not in asked.only):
            continue
        try:
            report = judged(catalogue, vectors, method, name, name in METHODS)
        except ImportError as error:
            print(f"{name}: left out, {error}", flush=True)
            continue
        report["collisions"]["groups"] = []  # titles stay where the data are
        for way in ("assign", "sinkhorn"):
            report.get(way, {}).pop("collisions", None)
        write_text(file, dumps(report))
        print(f"{name}: {report['verdict']['label']}, {report['seconds']['wall']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
