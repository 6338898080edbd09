"""What people reach: four judges on 4,812 pairs of Cystic Fibrosis, and, where a judge is named, what it reaches.

python reports/search/cystic_fibrosis.py --data DIR [--judge CHECKPOINT] --json FILE
"""

import argparse
import re
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import torch

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_train.search.agreement import agreement, ceiling, rounded_mean
from gti_train.search.collection import Collection, Document, Query

LETTERS = "abcd"


def read(folder: Path) -> tuple[Collection, dict[str, torch.Tensor]]:
    """The collection with the rounded mean of the four grades, and each judge's grades of its pairs; a pair whose grades are not
    four digits (a slip of the file) is left out."""
    documents = []
    for path in sorted(folder.glob("cf7*.xml")):
        for record in ElementTree.parse(path).getroot():
            text = record.findtext("ABSTRACT") or record.findtext("EXTRACT") or ""
            identifier, title = str(int(record.findtext("RECORDNUM"))), record.findtext("TITLE")
            documents.append(Document(identifier, _plain(title), _plain(text), identifier))
    queries, judged, grades = [], {}, []
    for record in ElementTree.parse(folder / "cfquery.xml").getroot():
        number = str(int(record.findtext("QueryNumber")))
        given = {i.text: [int(c) for c in i.get("score")] for i in record.find("Records") if len(i.get("score")) == 4}
        queries.append(Query(number, _plain(record.findtext("QueryText"))))
        judged[number] = {d: int(sum(four) / 4 + 0.5) for d, four in given.items()}
        grades += given.values()
    judges = dict(zip(LETTERS, torch.tensor(grades).T, strict=True))
    return Collection(tuple(documents), tuple(queries), judged), judges


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    collection, judges = read(given.data)
    pairs = {f"{a} and {b}": asdict(agreement(judges[a], judges[b])) for a, b in combinations(LETTERS, 2)}
    found = {
        "schema": 1,
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "pairs": pairs,
        "one against the mean of the others": {name: asdict(value) for name, value in ceiling(judges).items()},
        "grades of the rounded mean": torch.bincount(rounded_mean(list(judges.values()))).tolist(),
    }
    write_text(given.json, dumps(found))
    for name, value in found["one against the mean of the others"].items():
        print(name, value)


main()
