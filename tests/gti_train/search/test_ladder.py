"""The ladder: every way gives one score, rungs are kept and never measured twice, and the document adds nothing up wrong."""

import json
from pathlib import Path

import pytest
import torch

from gti_diag.errors import InputError
from gti_train.model.loading import load_language_model
from gti_train.search import ladder
from gti_train.search import rungs as every_rung
from gti_train.search.items.tokens import ItemTokens
from gti_train.search.ladder import (
    KEPT,
    WAYS,
    Rung,
    chosen_queries,
    climb,
    document,
    go_on,
    kept,
    second_reading,
    write_ladder,
)
from gti_train.search.prompts import DOCUMENT_FIRST, Prompter, Wording

from .search_cases import shop


@pytest.fixture
def ranker(tiny_lm):
    model, tokenizer = load_language_model(tiny_lm(), dtype=torch.float32)
    return model, Prompter(tokenizer, Wording("Match?", yes="Y", no="N", tail=":", max_tokens=80))


def test_every_way_of_running_full_text_gives_the_same_scores(ranker):
    model, prompter = ranker
    pairs = [(q.text, d.text) for q in shop().queries[:3] for d in shop().documents]
    asked = prompter.prompts(pairs)
    with torch.inference_mode():
        found = {name: way(model, asked, prompter.rows, None) for name, way in WAYS.items()}
    for name, scores in found.items():
        torch.testing.assert_close(scores, found["one-by-one"], atol=1e-5, rtol=0, msg=name)
    assert float(found["one-by-one"].std()) > 1e-3  # else equality says nothing


def rungs(ranker):
    texts = [d.text for d in shop().documents]
    items = ItemTokens(tuple(d.id for d in shop().documents), torch.randn(8, 2, 48).half(), 2)
    same = [Rung(name, name, name, lambda: ranker, texts=texts, same_scores="shared-prefix") for name in list(WAYS)[:4]]
    return [
        *same,
        Rung("shared-prefix", "shared", "shared-prefix", lambda: ranker, texts=texts),
        Rung("summaries", "short", "shared-prefix", lambda: ranker, texts=[d.title for d in shop().documents]),
        Rung("items", "items", "shared-prefix", lambda: ranker, items=items, offline_s=0.5),
        Rung("items-kept", "kept", KEPT, lambda: ranker, items=items, same_scores="items"),
    ]


@pytest.fixture
def climbed(ranker, tmp_path):
    part, places = chosen_queries(shop(), torch.arange(8).expand(12, 8), queries=6, top=8)
    names = list(climb(rungs(ranker), part, places, tmp_path, items=4, repeats=1))
    return names, part, places, tmp_path


def test_a_ladder_is_climbed_once_and_says_what_it_measured(ranker, climbed, monkeypatch):
    names, part, places, out = climbed
    assert names == [rung.name for rung in rungs(ranker)]
    monkeypatch.setattr(ladder, "speed", pytest.fail)
    monkeypatch.setattr(ladder, "judged", pytest.fail)
    list(climb(rungs(ranker), part, places, out, items=4, repeats=1))  # everything is there
    told = document(rungs(ranker), out, teacher="shared-prefix")
    by_name = {row["name"]: row for row in told["rungs"]}
    assert by_name["one-by-one"]["over"]["one-by-one"] == 1
    for base, times in by_name["items"]["over"].items():
        assert times == pytest.approx(by_name["items"]["speed"]["items_s"] / by_name[base]["speed"]["items_s"])
    assert by_name["two-rows"]["quality"] == by_name["shared-prefix"]["quality"]
    assert by_name["shared-prefix"]["quality"]["share"] == 1 and by_name["items"]["offline_s"] == 0.5
    assert by_name["items-kept"]["speed"]["kept_bytes"] > 0 and by_name["items"]["speed"]["kept_bytes"] is None
    assert by_name["items-kept"]["quality"] == by_name["items"]["quality"]
    ndcg = json.loads((out / "rungs" / "items.quality.json").read_text())["ndcg"]
    assert by_name["items"]["quality"]["ndcg"] == pytest.approx(sum(ndcg) / 6) and len(ndcg) == 6
    low, high = by_name["items"]["quality"]["interval"]
    assert low <= by_name["items"]["quality"]["ndcg"] <= high
    assert told["second_reading"]["rungs"] == 3 and -1 <= told["second_reading"]["rsa"] <= 1


def test_the_table_and_the_figure_are_written_and_what_is_not_measured_is_a_dash(ranker, climbed):
    out = climbed[-1]
    (out / "rungs" / "summaries.quality.json").unlink()
    text = write_ladder(document(rungs(ranker), out, teacher="shared-prefix"), out)
    assert text == (out / "ladder.md").read_text().rstrip("\n")
    line = next(line for line in text.splitlines() if line.startswith("| short"))
    assert line.rstrip(" |").endswith("– | – | – | –")
    assert "NDCG@8" in text.splitlines()[0]  # of eight documents there are no ten
    assert "\\" not in text  # it is printed as it is, too
    assert (out / "ladder.png").stat().st_size > 5000
    assert json.loads((out / "ladder.json").read_text())["teacher"] == "shared-prefix"


def test_what_keeps_keys_and_values_scores_as_what_runs_all(ranker):
    model, prompter = ranker
    asked = prompter.prompts([(shop().queries[0].text, d.text) for d in shop().documents])
    whole = WAYS["shared-prefix"](model, asked, prompter.rows, None)
    torch.testing.assert_close(kept(model, asked, prompter.rows, None)[1](), whole, atol=1e-5, rtol=0)


def test_a_ranker_that_keeps_nothing_has_no_such_rung(tiny_lm, tmp_path, caplog):
    model, tokenizer = load_language_model(tiny_lm(family="mamba"), dtype=torch.float32)
    own = model, Prompter(tokenizer, Wording("Match?", yes="Y", no="N", tail=":", order=DOCUMENT_FIRST, max_tokens=80))
    found = Rung("text-kept", "kept", KEPT, lambda: own, texts=[d.text for d in shop().documents], same_scores="text")
    assert list(climb([found], shop(), torch.zeros(12, 2), tmp_path, parts=["speed"], items=2)) == ["text-kept"]
    assert "MambaForCausalLM keeps no keys and values" in caplog.text and not list(tmp_path.glob("rungs/*"))


def test_rank_correlation_of_geometry_with_quality():
    def row(rsa, cka, ndcg, same=None):
        return {"quality": {"rsa": rsa, "cka": cka, "ndcg": ndcg}, "same_scores": same}

    rows = [
        row(1, 0.2, 0.9),
        row(0.8, 0.4, 0.8),
        row(0.5, 0.9, 0.3),
        row(0.1, 0.1, 0.99, same="x"),
        {"quality": None, "same_scores": None},
    ]
    assert second_reading(rows) == {"rungs": 3, "rsa": pytest.approx(1), "cka": pytest.approx(-1)}
    assert second_reading(rows[:2]) == {"rungs": 2}


def test_refusals(ranker, tmp_path):
    with pytest.raises(InputError, match="no rung is called 'judge'"):
        document(rungs(ranker), tmp_path, teacher="judge")
    with pytest.raises(InputError, match="8 documents a query and 9"):
        chosen_queries(shop(), torch.arange(8).expand(12, 8), queries=None, top=9)


def test_a_ladder_goes_on_with_more_and_with_nothing_else(tmp_path):
    go_on(tmp_path, {"JUDGE": "a", "--top": 20})
    go_on(tmp_path, {"JUDGE": "a", "--top": 20, "--pruned": "b"})
    go_on(tmp_path, {"JUDGE": "a"})
    with pytest.raises(InputError, match="rungs of another --pruned: name another --out, or remove"):
        go_on(tmp_path, {"JUDGE": "a", "--pruned": "c"})
    (tmp_path / "rungs" / "asked.json").write_text("[")
    with pytest.raises(InputError, match=r"asked\.json is damaged: remove"):
        go_on(tmp_path, {})


def test_only_parts_that_exist_are_measured(tmp_path):
    with pytest.raises(InputError, match="--parts 'qualty' cannot be measured: write speed,quality"):
        next(climb([], shop(), torch.zeros(12, 2), tmp_path, parts=["qualty"]))


def test_quality_alone_is_measured_in_a_new_folder(ranker, tmp_path):
    part, places = chosen_queries(shop(), torch.arange(8).expand(12, 8), queries=2, top=8)
    texts = [d.text for d in shop().documents]
    found = Rung("shared-prefix", "shared", "shared-prefix", lambda: ranker, texts=texts)
    list(climb([found], part, places, tmp_path / "new", parts=["quality"]))
    written = {path.name for path in (tmp_path / "new" / "rungs").iterdir()}
    assert written == {"shared-prefix.pt", "shared-prefix.quality.json"}


def test_neighbouring_rungs_share_a_loaded_judge_and_a_failed_load_is_tried_again(monkeypatch):
    loaded = []

    def load(folder, *, dtype):
        loaded.append(folder.name)
        if folder.name == "gone":
            raise InputError("not there")
        return folder, None

    monkeypatch.setattr(every_rung, "load_judge", load)
    last = every_rung.LastJudge()
    for name in ("judge", "judge", "pruned", "judge"):
        assert last(Path(name))[0] == Path(name)
    for _ in range(2):
        with pytest.raises(InputError):
            last(Path("gone"))
    assert loaded == ["judge", "pruned", "judge", "gone", "gone"]
