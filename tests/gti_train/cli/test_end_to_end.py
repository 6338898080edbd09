"""From the embedded world to judged recommendations, by the commands alone: what was fine-tuned beats popularity."""

import json


def test_fine_tuning_beats_popularity_on_the_embedded_world(command, tiny_lm, tmp_path):
    shop, sids, tuned = tmp_path / "shop", tmp_path / "sids", tmp_path / "tuned"
    data = ("--histories", shop / "histories.jsonl", "--sids", sids, "--history", 1, "--quiet")
    for arguments in (
        ("world", "--out", shop, "--items", 81, "--users", 150),
        ("sids", shop, "--out", sids, "--codes", "9,12", "--dimensions", 16, "--quiet"),
        ("extend", tiny_lm(), "--sids", sids, "--init", "gaussian", "--out", tmp_path / "extended"),
        ("sft", tmp_path / "extended", "--items", shop / "items.jsonl", *data, "--out", tuned, "--loss", "codes",
         "--steps", 150, "--batch-size", 48, "--lr", 1e-2, "--every", 0, "--dtype", "float32"),
        ("eval", tuned, *data, "--k", "20", "--json", tmp_path / "eval.json"),
    ):  # fmt: skip
        code, _, err = command(*arguments)
        assert code == 0, err
    found = json.loads((tmp_path / "eval.json").read_text())
    model, popular = found["metrics"], found["baselines"]["popularity"]
    for metric in ("recall@20", "ndcg@20"):
        assert model[metric]["value"] > 1.2 * popular[metric]["value"]
        assert found["against"]["popularity"][metric]["p_corrected"] < 0.05
