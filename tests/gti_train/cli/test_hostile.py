"""Hostile strings as items, texts, tokens and places, through every command that trains."""

import json

import pytest

from tests.hostile import NASTY, harmless

ITEMS = 24
PLACE = "shop [INST] \x1b[31m\n::error::owned https:/me:hunter2@host"  # two folders


@pytest.fixture
def told(command, capsys):
    """Standard output of `gti-train …`, which must succeed; all that it says is checked."""

    def run(*arguments):
        capsys.readouterr()  # what making the checkpoint printed
        code, out, err = command(*arguments)
        harmless(out + err)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def shop(tmp_path):
    """A catalogue whose titles, descriptions and ids are hostile, in a folder whose name is."""
    place = tmp_path / PLACE
    place.mkdir(parents=True)
    whole = [text for text in NASTY if "\ud800" not in text]
    named = [whole[n % len(whole)] for n in range(ITEMS)]
    items = [{"item_id": f"{text} {n}", "title": f"lamp {n} {text}", "description": f"kettle {n // 3} {text} lamp"} for n, text in enumerate(named)]  # fmt: skip
    (place / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    ids = [item["item_id"] for item in items]
    users = [{"user_id": f"{whole[n]} {n}", "items": ids[n : n + 6]} for n in range(8)]
    (place / "histories.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    return place


@pytest.mark.parametrize("place", ["item_id", "title", "description", "category"])
def test_half_a_character_is_refused_where_it_stands(command, shop, place):
    item = {"item_id": "x", "title": "lamp", "description": "kettle", "category": ["home"]}
    item[place] = ["\ud800"] if place == "category" else "lamp \ud800"
    with (shop / "items.jsonl").open("a") as file:
        file.write(json.dumps(item) + "\n")
    for rest in (["catalogue"], ["sids", "--codes", "4,4"]):
        code, out, err = command(rest[0], shop / "items.jsonl", "--out", shop / "out", *rest[1:])
        harmless(out + err)
        assert code == 2 and f"line {ITEMS + 1}: {place} holds half a character, \\ud800" in err
    code, _, err = command("catalogue", shop / "items.jsonl", "--out", shop / "out", "--skip-bad")
    assert code == 0, err


def test_every_stage_shows_what_can_be_shown(told, shop, tiny_lm, tmp_path):
    told("catalogue", shop / "items.jsonl", "--out", shop / "read")
    items, histories, sids = shop / "items.jsonl", shop / "histories.jsonl", shop / "sids"
    told("sids", items, "--out", sids, "--codes", "4,4,4", "--dimensions", 4, "--report")
    base = tiny_lm()
    told("extend", base, "--sids", sids, "--items", items, "--init", "description", "--out", shop / "ext")
    about = ("--items", items, "--sids", sids, "--steps", 2, "--batch-size", 2, "--dtype", "float32")
    told("ground", shop / "ext", *about, "--out", shop / "gti", "--hold-out", 0.1, "--every", 1)
    told("sft", shop / "gti", *about, "--histories", histories, "--out", shop / "sft", "--tasks", "all", "--history", 3)
    judged = shop / "eval.json"
    told(
        "eval", shop / "sft", "--histories", histories, "--sids", sids, "--json", judged, "--k", "2,4", "--items", items
    )
    told("curves", f"[/b]={judged}", f"gti={judged}", "--baseline", "[/b]", "--out", shop / "figures")
    told("probe", shop / "sft", "--out", shop / "probe.jsonl", "--most", 2)


def test_tokens_of_any_form_are_added_probed_and_repaired(told, tiny_lm, tmp_path):
    tokens = [text for text in NASTY if "\ud800" not in text and not {"\n", "\r", "\u2028"} & set(text)]
    (tmp_path / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    told("extend", tiny_lm(), "--tokens", f"@{tmp_path / 'tokens.txt'}", "--init", "random", "--out", tmp_path / "ext")
    ids = json.loads((tmp_path / "ext" / "gti.json").read_text())["ids"]
    (tmp_path / "texts.json").write_text(json.dumps(dict.fromkeys(tokens, "a lamp")))
    named = ("--ids", ",".join(map(str, ids)), "--descriptions", tmp_path / "texts.json")
    told("probe", tmp_path / "ext", "--out", tmp_path / "probe.jsonl", *named, "--most", 2)
    out = told("repair", tmp_path / "ext", "--out", tmp_path / "new", "--rule", "description", *named, "--most", 0.5)
    assert "[/INST]" in out


STUDY = """
name = "shop"
model = {model}
chat = false
data = {{ source = {source} }}
sids = {{ dimensions = 4, sizes = [4, 4, 4] }}
fine_tuning = {{ steps = 1, batch = 2, longest = 3 }}
evaluation = {{ ks = [4] }}
arms = {{ mean = {{ start = "mean" }} }}
"""


def test_a_study_and_the_demo_in_a_hostile_place(told, shop, tiny_lm, tmp_path):
    model = tiny_lm(f"{PLACE}/base")
    study = tmp_path / "[item_0].toml"
    study.write_text(STUDY.format(model=json.dumps(str(model)), source=json.dumps(str(shop))), encoding="utf-8")
    assert "seed-0/mean" in told("run", study, "--out", shop / "run", "--dry-run")
    told("run", study, "--out", shop / "run")
    told("summarise", shop / "run" / "results", "--out", shop / "drawn")
    told("demo", "--model", model, "--out", shop / "demo", "--items", 81, "--codes", "12,10", "--steps", 1)


def test_a_collection_of_hostile_texts_is_searched(told, shop, tiny_lm, monkeypatch):
    whole = [text for text in NASTY if "\ud800" not in text]
    named = [f"{''.join(text.split())}-{n}" for n, text in enumerate(whole)]
    lines = {
        "documents.jsonl": [{"doc_id": name, "title": text, "text": f"lamp {text}", "group": name} for name, text in zip(named, whole, strict=True)],
        "queries.jsonl": [{"query_id": f"q{name}", "text": f"{text} kettle"} for name, text in zip(named, whole, strict=True)],
    }  # fmt: skip
    for name, records in lines.items():
        (shop / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (shop / "qrels.tsv").write_text("".join(f"q{name}\t{name}\t1\n" for name in named), encoding="utf-8")
    part = ("--data", shop, "--split", "[/b]")
    base, found = tiny_lm(f"{PLACE}/base"), shop / "[bold].run"
    told("search", "retrieve", *part, "--encoder", "bm25", "--k", 3, "--out", found)
    told("search", "judge", base, *part, "--out", shop / "judge", "--epochs", 0.1, "--batch-size", 1, "--max-tokens", 256, "--yes", "Y", "--no", "N")  # fmt: skip
    told("search", "rerank", shop / "judge", found, *part, "--out", shop / "judged.run")
    told("search", "evaluate", found, shop / "judged.run", *part, "--k", 3, "--json", shop / "quality.json")
    monkeypatch.setattr("gti_train.search.students.WORDS", {"click": ("C", "S"), "apply": ("A", "L")})
    learn = (shop / "judge", *part, "--epochs", 0.01, "--batch-size", 1)
    told("search", "prune", *learn, "--drop-layers", 1, "--out", shop / "pruned")
    told("search", "rank", *learn, "--out", shop / "ranker")
    told("search", "items", *learn, "--tokens", 2, "--encoder-layers", 1, "--out", shop / "items")
    told("search", "encode", shop / "items", *part, "--out", shop / "later")
    short = shop / "summaries.jsonl"
    told("search", "summaries", shop / "judge", *part, "--budget", 8, "--queries", 1, "--out", short)
    rungs = ("--pruned", shop / "pruned", "--items", shop / "items", "--summaries", short)
    few = ("--documents", 2, "--top", 2, "--queries", 2)
    told("search", "ladder", shop / "judge", found, *part, *rungs, *few, "--out", shop / "ladder")
    told("search", "collection", "--out", shop / "invented", "--items", 81, "--queries", 10)


COMMANDS = {
    "catalogue": ["{0}", "--out", "{out}"],
    "sids": ["{0}", "--out", "{out}", "--codes", "4,4"],
    "extend": ["{0}", "--tokens", "<a_0>,<a_1>", "--out", "{out}"],
    "ground": ["{0}", "--items", "{0}", "--sids", "{0}", "--out", "{out}"],
    "sft": ["{0}", "--items", "{0}", "--histories", "{0}", "--sids", "{0}", "--out", "{out}"],
    "eval": ["{0}", "--histories", "{0}", "--sids", "{0}", "--json", "{out}/x.json"],
    "curves": ["a={0}", "--baseline", "a", "--out", "{out}"],
    "repair": ["{0}", "--rule", "mean", "--out", "{out}"],
    "probe": ["{0}", "--out", "{out}/p.jsonl"],
    "run": ["{0}", "--out", "{out}"],
    "summarise": ["{0}", "--out", "{out}"],
    "demo": ["--model", "{0}", "--out", "{out}", "--quiet"],
    "search tune": ["--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search retrieve": ["--data", "{0}", "--split", "{0}", "--encoder", "{0}", "--out", "{out}/x.run"],
    "search judge": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search rerank": ["{0}", "{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}/x.run"],
    "search evaluate": ["{0}", "--data", "{0}", "--split", "{0}"],
    "search agree": ["{0}", "--data", "{0}", "--split", "{0}", "--like", "{0}"],
    "search prune": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search summaries": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}/x.jsonl"],
    "search rank": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search items": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search encode": ["{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search ladder": ["{0}", "{0}", "--data", "{0}", "--split", "{0}", "--out", "{out}"],
    "search demo": ["--model", "{0}", "--out", "{out}", "--quiet"],
}


@pytest.mark.parametrize("text", [text for text in NASTY if "\ud800" not in text])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_there_is_named_in_one_line(command, tmp_path, name, text):
    code, out, err = command(*name.split(), *(part.format(text, out=tmp_path / "out") for part in COMMANDS[name]))
    harmless(out + err)
    assert (code, out) == (2, ""), err
    assert err.startswith("gti-train: ") and err.count("\n") == 1
    assert "not foreseen" not in err, err
    assert name.endswith("demo") or not (tmp_path / "out").exists()  # the demos keep the stages before the model
