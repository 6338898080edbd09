"""gti-train probe at the terminal."""


def test_probe_tells_rates_and_refuses_what_it_cannot_ask(command, tiny_lm, tmp_path):
    folder = tiny_lm("probed", new_tokens=["<a_0>", "<a_1>"])
    code, out, _ = command("probe", folder, "--out", tmp_path / "probe.jsonl")
    assert code == 0 and "2 tokens of distinct rows" in out and "repeat: " in out and "of 6 attempts" in out
    assert len((tmp_path / "probe.jsonl").read_text().splitlines()) == 3
    for options, message in (
        (["--ids", "1", "--scan", "x"], "give one of them"),
        (["--ids", "9999"], "rows 0 to"),
        (["--items", "x"], "give both"),
    ):
        code, _, error = command("probe", folder, "--out", tmp_path / "other.jsonl", *options)
        assert code == 2 and message in error
    code, _, error = command("probe", tiny_lm("plain"), "--out", tmp_path / "other.jsonl")
    assert code == 2 and "has no new tokens" in error
