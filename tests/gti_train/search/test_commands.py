"""The commands in a row, as a user types them: each leaves what the next one opens."""

import json

import pytest
from typer.testing import CliRunner

from gti_diag.errors import InputError
from gti_train.cli import app
from gti_train.search.collection import write_collection
from gti_train.search.reading import read_collection
from gti_train.search.runs import read_run

from .search_cases import shop


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["search", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def data(tmp_path):
    write_collection({"train": shop(), "test": shop()}, tmp_path / "shop")
    return ("--data", tmp_path / "shop", "--split", "test")


def test_from_a_collection_to_a_judged_ranking(tiny_lm, tmp_path, data):
    (tmp_path / "policy.txt").write_text("Is it good for the road?\n")
    run("judge", tiny_lm(), *data, "--out", tmp_path / "judge", "--policy", tmp_path / "policy.txt", "--yes", " warm",
        "--no", " light", "--order", "document-first", "--max-tokens", 256, "--epochs", 30, "--lr", 3e-3, "--batch-size", 4, "--quiet")  # fmt: skip
    asked = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert asked["policy"] == "Is it good for the road?" and asked["order"] == "document-first"
    run("retrieve", *data, "--encoder", "bm25", "--k", 4, "--out", tmp_path / "bm25.run", "--quiet")
    run("rerank", tmp_path / "judge", tmp_path / "bm25.run", *data, "--out", tmp_path / "judged.run", "--quiet")
    part = read_collection(tmp_path / "shop", "test")
    before, after = (read_run(tmp_path / f"{name}.run", part) for name in ("bm25", "judged"))
    assert before.places.sort(1).values.equal(after.places.sort(1).values) and not before.places.equal(after.places)
    told = run(
        "evaluate", tmp_path / "bm25.run", tmp_path / "judged.run", *data, "--k", 4, "--json", tmp_path / "quality.json"
    )
    found = json.loads((tmp_path / "quality.json").read_text())
    assert found["queries"] == 12 and set(found["runs"]) == {
        str(tmp_path / f"{name}.run") for name in ("bm25", "judged")
    }
    assert f"NDCG@4 {found['runs'][str(tmp_path / 'judged.run')]['ndcg']['value']:.3f}" in told
    people = [tmp_path / f"{name}.tsv" for name in "abc"]
    for place, path in enumerate(people):
        path.write_text("".join(f"{q.id}\t{q.id[:-2]}-red\t{4 - place * (q.id[-1] == '0')}\n" for q in part.queries))
    told = run(
        "agree", tmp_path / "judge", *data, "--like", "train", *(x for path in people for x in ("--judges", path))
    )
    assert "judge: quadratic κ" in told and "person a.tsv: quadratic κ" in told and "24 pairs" in told


def test_a_tuned_encoder_retrieves(tmp_path, data):
    run("tune", *data, "--out", tmp_path / "encoder", "--epochs", 1, "--batch-size", 2, "--quiet")
    told = run("retrieve", *data, "--encoder", tmp_path / "encoder", "--out", tmp_path / "tuned.run", "--quiet")
    assert "8 documents for each of 12 queries" in told


def test_the_embedded_collection_is_written_in_two_parts_that_share_no_shelf(tmp_path):
    told = run("collection", "--out", tmp_path / "world", "--items", 162, "--queries", 80)
    train, test = (read_collection(tmp_path / "world", name) for name in ("train", "test"))
    assert f"{len(train.queries)} queries to learn from and {len(test.queries)} to test" in told
    assert not {g for best in train.best_groups for g in best} & {g for best in test.best_groups for g in best}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lamp-0 Q0 lamp-red 1 0.5", r"t.run:13: 5 columns; write query, Q0, document, rank, score and name"),
        ("lamp-0 Q0 lamp-red 1 high me", r"t.run:13: score 'high' is no number"),
        ("lamp-0 Q0 sofa 1 0.5 me", r"document 'sofa' is unknown"),
        ("lamp-0 Q0 lamp-red 1 0.5 me", r"a document is ranked twice for query 'lamp-0'"),
    ],
)
def test_a_malformed_run_is_named(tmp_path, line, said):
    part = shop()
    lines = [f"{query.id} Q0 lamp-red 1 1.0 me" for query in part.queries]
    (tmp_path / "t.run").write_text("\n".join([*lines, line]))
    with pytest.raises(InputError, match=said):
        read_run(tmp_path / "t.run", part)
    (tmp_path / "t.run").write_text("\n".join([*lines[1:], "other Q0 lamp-red 1 1.0 me"]))
    with pytest.raises(InputError, match="nothing is ranked for query 'kettle-0'"):
        read_run(tmp_path / "t.run", part)
