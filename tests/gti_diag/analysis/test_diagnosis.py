"""One checkpoint, end to end: real files in, the analysis document out."""

import gc
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gti_diag
import gti_diag.document
from gti_diag.analysis.group_rows import GroupRows
from gti_diag.analysis.resemblance import resemblance
from gti_diag.errors import InputError
from gti_diag.measures.tiles import at_once
from tests.conftest import vocabulary_like

TOKENS = [f"<{letter}_{code}>" for letter in "abc" for code in range(20)]
KEYS = {
    "count", "unique_rows", "singular_values", "effective_rank", "effective_rank_centred", "participation_ratio",
    "stable_rank", "numerical_rank", "mean_cosine", "mean_cosine_centred", "dispersion", "dispersion_ratio", "norm",
}  # fmt: skip


def rewrite(folder, change, dtype=None):
    """Change the new rows (the last 60) of the stored input matrix in place."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.embed_tokens.weight"
    rows = tensors[name].clone()
    rows[-len(TOKENS) :] = change(rows[: -len(TOKENS)].double()).to(rows.dtype)
    save_file({**tensors, name: rows}, file, metadata={"format": "pt"})
    return folder


def codebook(seed=1):
    return torch.randn(len(TOKENS), 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grounded(text):
    lift = torch.randn(8, text.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return text.mean(0) + 0.02 * codebook() @ lift + 0.04 * random_like(text, seed=5) / text.std()


def random_like(text, seed=3):
    return text.std() * torch.randn(len(TOKENS), text.shape[1], generator=torch.Generator().manual_seed(seed)).double()


def resized(text):
    """As transformers' mean_resizing draws new rows: mean + 1e-9 covariance."""
    generator = torch.Generator().manual_seed(4)
    draws = torch.randint(len(text), (len(TOKENS), 64), generator=generator)
    shape = (text - text.mean(0))[draws].sum(1) / 8
    return text.mean(0) + 1e-9**0.5 * shape


def half(trained, start):
    return torch.where(torch.arange(len(TOKENS))[:, None] % 2 == 0, trained, start.double())


CASES = {
    "mean": (lambda text: text.mean(0).expand(len(TOKENS), -1), "collapsed"),
    "mean_resizing": (resized, "collapsed"),
    "zeros": (lambda text: torch.zeros(len(TOKENS), text.shape[1]), "collapsed"),
    "one outlier": (lambda text: torch.cat([text.mean(0).expand(len(TOKENS) - 1, -1), text[:1] * 30]), "collapsed"),
    "half never trained": (lambda text: half(grounded(text), text.mean(0)), "degenerate"),
    "half still resized": (lambda text: half(grounded(text), resized(text)), "degenerate"),
    "few distinct rows": (lambda text: text[:6].repeat(10, 1), "degenerate"),
    "random": (random_like, "unstructured"),
    "shuffled": (lambda text: grounded(text).flip(0), "unstructured"),
    "grounded": (grounded, "healthy"),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_comes_out_of_the_rows(tiny_lm, tmp_path, case):
    change, label = CASES[case]
    folder = rewrite(tiny_lm("anything", new_tokens=TOKENS), change)
    np.save(tmp_path / "reference.npy", codebook().numpy())
    analysis = gti_diag.diagnose(folder, reference=tmp_path / "reference.npy")
    matrix = analysis["matrices"]["input"]
    assert matrix["verdict"]["label"] == label, matrix["verdict"]["reasons"]
    keys = {"measure", "value", "expected", "text", "cause", "action", "verify"}
    assert all(set(reason) == keys for reason in matrix["verdict"]["reasons"])
    json.dumps(analysis, allow_nan=False)


def test_the_contract_keys_are_there(tiny_lm, tmp_path):
    folder = rewrite(tiny_lm("gti", new_tokens=TOKENS), grounded)
    np.save(tmp_path / "reference.npy", codebook().numpy())
    analysis = gti_diag.diagnose(folder, reference=tmp_path / "reference.npy")
    assert analysis["schema"] == 1
    assert {"path", "fingerprint", "format", "tied", "dtype"} <= set(analysis["checkpoint"])
    assert analysis["tokens"]["groups"]["new"] == {"count": 60, "levels": 3, "level_counts": [20, 20, 20]}
    matrix = analysis["matrices"]["input"]
    assert {"shape", "groups", "hierarchy", "neighbours", "rsa", "verdict"} <= set(matrix)
    assert set(matrix["groups"]["new"]) >= KEYS and set(matrix["groups"]["text"]) >= KEYS - {"dispersion_ratio"}
    assert set(matrix["rsa"]["pearson"]) == {"value", "interval", "p_value"}
    assert matrix["rsa"]["pairs"] == 60 * 59 // 2 and set(matrix["rsa"]["levels"]) == {"1", "2", "3"}
    assert len(matrix["panel"]["cosine"]) == 100 and len(matrix["blocks"]["cosine"]) == 60


def test_every_measure_is_compared_with_text_samples(tiny_lm):
    found = gti_diag.diagnose(rewrite(tiny_lm("n", new_tokens=TOKENS), grounded))["matrices"]["input"]
    new, null = found["groups"]["new"], found["null"]["measures"]
    assert {"effective_rank", "components_95_centred", "alpha_req", "two_nn", "hubness", "uniformity"} <= set(null)
    assert all(band["low"] <= band["median"] <= band["high"] for band in null.values())
    assert set(null) <= set(new)
    assert new["alpha_req_fit"]["first"] == 11 and 0 <= new["text_angle"] <= 90


def test_codes_of_a_second_kind_have_their_own_verdict(tiny_lm):
    second = [f"[C1_{code}]" for code in range(20)]
    folder = tiny_lm("two", new_tokens=TOKENS + second)

    def change(rows):
        rows[-20:] = rows[:-80].mean(0)
        rows[-80:-20] = random_like(rows[:-80].double()).to(rows.dtype)
        return rows

    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.embed_tokens.weight"
    save_file({**tensors, name: change(tensors[name].clone())}, file, metadata={"format": "pt"})
    found = gti_diag.diagnose(folder)["matrices"]["input"]
    (other,) = found["others"].values()
    assert found["verdict"]["label"] != "collapsed" and other["verdict"]["label"] == "collapsed"


def test_exact_ranks_are_the_default_for_few_pairs(tiny_lm, tmp_path):
    folder = rewrite(tiny_lm("gti", new_tokens=TOKENS), grounded)
    np.save(tmp_path / "reference.npy", codebook().numpy())
    plain, exact = (gti_diag.diagnose(folder, reference=tmp_path / "reference.npy", exact=e) for e in (False, True))
    assert plain["matrices"]["input"]["rsa"] == exact["matrices"]["input"]["rsa"]
    assert plain["matrices"]["input"]["rsa"]["permuted"] == "within levels"


def with_references(folder, **references):
    """References beside the weights as gti.json names them."""
    sidecar = json.loads((folder / "gti.json").read_text()) if (folder / "gti.json").is_file() else {"schema": 1}
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    sidecar |= {"new_tokens": TOKENS, "ids": list(range(rows - 60, rows)), "levels": [1] * 20 + [2] * 20 + [3] * 20}
    for name, vectors in references.items():
        if name == "counts":
            sidecar[name] = vectors
        else:
            save_file({name: vectors}, folder / f"{name}.safetensors")
            sidecar[name] = f"{name}.safetensors"
    (folder / "gti.json").write_text(json.dumps(sidecar))
    return folder


def test_item_means_are_judged_by_and_codebooks_shown_beside_them(tiny_lm):
    folder = rewrite(tiny_lm("both", new_tokens=TOKENS), grounded)
    counts = torch.randint(1, 30, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    found = gti_diag.diagnose(
        with_references(folder, codebooks=codebook(seed=9), item_means=codebook(), counts=counts), seed=1
    )["matrices"]["input"]
    rsa, other = found["rsa"], found["rsa_references"]["codebooks"]
    assert found["verdict"]["label"] == "healthy" and "means of their items" in found["verdict"]["reasons"][1]["text"]
    assert rsa["reference"].endswith("item_means.safetensors") and rsa["read"] == "counts_held"
    for part in (rsa, *rsa["levels"].values()):
        assert {"pearson", "centred", "counts_held"} <= set(part)
        assert part["counts_held"]["value"] > 0.1 > abs(other["counts_held"]["value"])
        assert part["counts_held"]["interval"][0] < part["counts_held"]["value"] < part["counts_held"]["interval"][1]
    assert [test["apart"] for test in rsa["beyond"]] == [[1], [2], [3]]
    assert all(test["p_value"] < 0.01 for test in rsa["beyond"]) and "spearman" not in other


def test_an_item_table_says_how_many_items_carry_each_token(tiny_lm, tmp_path):
    folder = rewrite(tiny_lm("counted", new_tokens=TOKENS), grounded)
    np.save(tmp_path / "r.npy", codebook().numpy())
    items = {str(n): [f"<a_{n % 20}>", f"<b_{n % 7}>", f"<c_{n % 20}>"] for n in range(140)}
    (tmp_path / "items.json").write_text(json.dumps(items))
    found = gti_diag.diagnose(folder, reference=tmp_path / "r.npy", items=tmp_path / "items.json")["matrices"]["input"][
        "rsa"
    ]
    levels = found["levels"]
    assert levels["1"]["counts_held"]["value"] == levels["1"]["centred"]["value"]  # as many items each: nothing to hold
    assert levels["2"]["counts_held"]["value"] != levels["2"]["centred"]["value"]


@pytest.mark.parametrize("counts", [[1, 2], ["a"] * 60, [-1] * 60, {"a": 1}])
def test_counts_that_are_none_are_refused(tiny_lm, counts):
    with pytest.raises(InputError, match=r"gti\.json: counts"):
        gti_diag.diagnose(with_references(tiny_lm("bad", new_tokens=TOKENS), counts=counts))


def test_a_reference_for_a_few_tokens_tests_nothing_and_says_which_it_lacks(tiny_lm, tmp_path):
    folder = rewrite(tiny_lm("few", new_tokens=TOKENS), grounded)
    vectors = codebook().numpy()
    vectors[10:] = 0
    np.save(tmp_path / "r.npy", vectors)
    verdict = gti_diag.diagnose(folder, reference=tmp_path / "r.npy")["matrices"]["input"]["verdict"]
    assert verdict["label"] == "untested"
    texts = [reason["text"] for reason in verdict["reasons"]]
    assert "not tested" in texts[0] and "10 of 60 tokens have a row and a vector" in texts[0]
    assert any("50 of 60 tokens were not compared" in text and "<a_10>" in text for text in texts)


def test_two_clusters_of_four_match_perfectly_and_prove_nothing(tmp_path):
    text = vocabulary_like(300, 24)
    clusters = torch.eye(2).repeat_interleave(4, 0)
    np.save(tmp_path / "r.npy", clusters.numpy())
    new = clusters @ vocabulary_like(2, 24, seed=1) + 0.5 * vocabulary_like(8, 24, seed=2)
    verdict = judged(plain(tmp_path, text, new), reference=tmp_path / "r.npy")["verdict"]
    assert verdict["label"] == "untested" and "arrangements" in verdict["reasons"][0]["text"]


def test_exact_mean_rows_measure_as_one_point(tiny_lm):
    folder = rewrite(tiny_lm("mean", new_tokens=TOKENS), CASES["mean"][0])
    new = gti_diag.diagnose(folder)["matrices"]["input"]["groups"]["new"]
    assert new["unique_rows"] == 1 and new["dispersion"] == 0 and new["dispersion_ratio"] == 0
    assert new["effective_rank"] == pytest.approx(1, abs=1e-9) and new["mean_cosine"] == pytest.approx(1, abs=1e-12)
    assert new["effective_rank_centred"] is None and "identical" in new["undefined"]["effective_rank_centred"]


def test_bf16_rounding_is_not_taken_for_shape(tiny_lm):
    folder = rewrite(tiny_lm("bf16", new_tokens=TOKENS, dtype=torch.bfloat16), resized)
    matrix = gti_diag.diagnose(folder)["matrices"]["input"]
    assert matrix["groups"]["new"]["effective_rank_centred"] is None
    assert "bfloat16" in matrix["groups"]["new"]["undefined"]["effective_rank_centred"]
    assert matrix["verdict"]["label"] == "collapsed"


def test_no_new_tokens_is_said_and_text_is_still_measured(tiny_lm):
    analysis = gti_diag.diagnose(tiny_lm("plain"))
    matrix = analysis["matrices"]["input"]
    assert analysis["tokens"]["rule"].startswith("no new tokens") and "new" not in matrix["groups"]
    assert matrix["verdict"]["label"] is None and matrix["groups"]["text"]["effective_rank"] > 1


def test_untied_heads_are_measured_on_their_own(tiny_lm):
    analysis = gti_diag.diagnose(tiny_lm("untied", tied=False, new_tokens=TOKENS))
    assert set(analysis["matrices"]) == {"input", "output"} and analysis["checkpoint"]["tied"] is False


def test_same_seed_same_bytes(tiny_lm):
    folder = rewrite(tiny_lm("again", new_tokens=TOKENS), grounded)
    first, second, other = (gti_diag.document.dumps(gti_diag.diagnose(folder, seed=seed)) for seed in (0, 0, 1))
    assert first == second and first != other


def test_memory_limit_streams_and_agrees(tiny_lm, monkeypatch):
    from gti_diag.analysis import diagnosis

    folder = rewrite(tiny_lm("large", new_tokens=TOKENS), grounded)
    whole = gti_diag.diagnose(folder)["matrices"]["input"]["groups"]["text"]
    monkeypatch.setattr(diagnosis, "RESIDENT_SHARE", 1e-6)  # 10 rows of 2 GB: the text group no longer fits
    streamed = gti_diag.diagnose(folder)["matrices"]["input"]["groups"]["text"]
    assert streamed["sampled"] < whole["count"] == streamed["count"]
    assert streamed["singular_values"] == pytest.approx(whole["singular_values"], rel=1e-9)
    assert streamed["unique_rows"] == whole["unique_rows"] and streamed["norm"]["mean"] == whole["norm"]["mean"]
    for name in ("mean_cosine", "mean_cosine_centred", "dispersion", "alpha_req"):
        assert streamed[name] == pytest.approx(whole[name], rel=1e-6)


def test_text_rows_are_let_go_before_rsa_needs_their_memory(tiny_lm, tmp_path, monkeypatch):
    def watched(*arguments, **options):
        alive = [kept.name for kept in gc.get_objects() if type(kept) is GroupRows]
        assert alive.count("new") == 1 and "text" not in alive
        return resemblance(*arguments, **options)

    monkeypatch.setattr("gti_diag.analysis.diagnosis.resemblance", watched)
    monkeypatch.setattr("gti_diag.analysis.diagnosis.FEW", 0)
    np.save(tmp_path / "books.npy", codebook().numpy())
    found = gti_diag.diagnose(tiny_lm("many", new_tokens=TOKENS), reference=tmp_path / "books.npy")["matrices"]["input"]
    assert found["rsa"]["tokens"] == len(TOKENS) and found["neighbours"]


def test_parts_beside_each_other_say_what_they_say_alone(tiny_lm, tmp_path, monkeypatch):
    np.save(tmp_path / "books.npy", codebook().numpy())
    folder = rewrite(tiny_lm("both", tied=False, new_tokens=TOKENS), grounded)
    told, shared, threads = [], [], torch.get_num_threads()
    monkeypatch.setattr(
        "gti_diag.analysis.diagnosis.at_once", lambda jobs, device: (shared.append(len(jobs)), at_once(jobs, device))[1]
    )
    torch.set_num_threads(2)
    try:
        for few in (2048, 0):
            monkeypatch.setattr("gti_diag.analysis.diagnosis.FEW", few)
            told.append(gti_diag.diagnose(folder, reference=tmp_path / "books.npy"))
    finally:
        torch.set_num_threads(threads)
    assert shared == [4, 4, 3, 4]  # input with the scan of both matrices, then the head; of many rows nothing
    beside, alone = (gti_diag.document.dumps(analysis) for analysis in told)
    assert beside == alone


def test_nan_rows_are_refused(tiny_lm):
    folder = rewrite(tiny_lm("broken", new_tokens=TOKENS), lambda text: torch.full((60, text.shape[1]), torch.nan))
    with pytest.raises(InputError, match=r"60 rows of group new hold NaN .* \(first: token id \d+\)"):
        gti_diag.diagnose(folder)


@pytest.mark.parametrize(
    "options,words",
    [
        ({"matrix": "middle"}, "choose input, output or both"),
        ({"matrix": "output"}, "no separate output matrix"),
        ({"device": "tpu"}, "choose auto, cpu or cuda"),
        ({"new": "<zz_"}, "matches none"),
    ],
)
def test_bad_options_are_named(tiny_lm, options, words):
    with pytest.raises(InputError, match=words):
        gti_diag.diagnose(tiny_lm("plain"), **options)


def test_a_reference_needs_new_tokens(tiny_lm, tmp_path):
    np.save(tmp_path / "reference.npy", codebook().numpy())
    with pytest.raises(InputError, match="a reference is for new tokens, but there are none"):
        gti_diag.diagnose(tiny_lm("plain"), reference=tmp_path / "reference.npy")


def test_compare_keeps_order_and_options(tiny_lm):
    folders = [rewrite(tiny_lm(name, new_tokens=TOKENS), CASES[name][0]) for name in ("mean", "random")]
    seen = []
    analyses = gti_diag.compare(folders, progress=lambda stage, share: seen.append(stage))
    assert [analysis["checkpoint"]["name"] for analysis in analyses] == ["mean", "random"]
    assert any(stage.startswith("[2/2]") for stage in seen)


def test_drift_finds_the_old_rows_that_moved(tiny_lm):
    base = tiny_lm("base")
    folder = rewrite(tiny_lm("moved", new_tokens=TOKENS), grounded)
    file = folder / "model.safetensors"
    tensors, still = load_file(file), load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    still[[5, 7]] *= 1.5
    tensors["model.embed_tokens.weight"][: len(still)] = still
    save_file(tensors, file, metadata={"format": "pt"})
    analysis = gti_diag.diagnose(folder, base=base)
    drift = analysis["matrices"]["input"]["drift"]["groups"]
    assert drift["text"]["moved"] == 2 and drift["text"]["largest_relative"] == pytest.approx(0.5, rel=1e-6)
    assert {entry["id"] for entry in drift["text"]["farthest"]} == {5, 7} and "new" not in drift
    assert analysis["tokens"]["rule"].startswith("60 tokens that the base")


def plain(tmp_path, text, new, dtype=torch.float32):
    file = tmp_path / "rows.safetensors"
    save_file({"w": torch.cat([text, new]).to(dtype)}, file)
    return {"checkpoint": file, "new": f"{len(text)}:{len(text) + len(new)}"}


def judged(asked, **options):
    analysis = gti_diag.diagnose(**asked, **options)
    json.dumps(analysis, allow_nan=False)
    return analysis["matrices"]["input"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_rows_of_every_float_type_are_measured(tmp_path, dtype):
    text = 10 * vocabulary_like(300, 24)
    np.save(tmp_path / "r.npy", codebook().numpy())
    asked = plain(tmp_path, text, grounded(text.double()).float()[:60], getattr(torch, dtype))
    found = judged(asked, reference=tmp_path / "r.npy")
    assert found["dtype"] == dtype and set(found["groups"]["new"]["undefined"]) <= {"alpha_req"}
    assert found["rsa"]["spearman"]["value"] > 0.1 and found["verdict"]["label"] == "healthy"


def test_rows_below_the_rounding_of_their_type_have_no_shape(tmp_path):
    text = 10 * vocabulary_like(300, 24)
    np.save(tmp_path / "r.npy", codebook().numpy())
    near = text.mean(0) * (1 + 1e-4 * torch.randn(60, 24, generator=torch.Generator().manual_seed(0)))
    found = judged(plain(tmp_path, text, near, torch.float8_e4m3fn), reference=tmp_path / "r.npy")
    new = found["groups"]["new"]
    assert new["dispersion"] <= new["precision_floor"] and found["verdict"]["label"] == "collapsed"
    shapes = (
        "effective_rank_centred",
        "mean_cosine_centred",
        "two_nn",
        "hubness",
        "text_subspace_energy",
        "text_angle",
    )
    assert all(new[name] is None and new["undefined"][name] for name in shapes)
    assert found["rsa"]["pearson"]["value"] is None and found["rsa"]["spearman"]["value"] is None


def test_an_outlier_does_not_make_neighbours_of_rounding(tmp_path):
    text = vocabulary_like(300, 24)
    new = resized(text.double()).float()
    new[7] += 3
    found = judged(plain(tmp_path, text, new, torch.bfloat16))["groups"]["new"]
    assert found["dispersion"] > found["precision_floor"] > found["median_dispersion"]
    assert found["effective_rank_centred"] == pytest.approx(1, abs=0.1)
    assert found["two_nn"] is found["hubness"] is found["mean_cosine_centred"] is None


def test_crowded_rows_are_those_with_another_within_a_hundredth_of_the_spread(tmp_path):
    text, new = vocabulary_like(300, 24).double(), vocabulary_like(40, 24, seed=1).double()
    radius = 0.01 * float((text - text.mean(0)).square().sum(1).mean().sqrt())
    step = torch.nn.functional.normalize(vocabulary_like(2, 24, seed=2).double(), dim=1) * radius
    new[5], new[6], new[8] = new[4] + 0.9 * step[0], new[7] + 1.1 * step[1], 0
    found = judged(plain(tmp_path, text, new, torch.float64))["groups"]["new"]
    assert (found["crowded_rows"], found["near_duplicates"]) == (2, 0)  # one zero row has no twin
    new[9] = 0
    assert judged(plain(tmp_path, text, new, torch.float64))["groups"]["new"]["crowded_rows"] == 4


def test_norms_that_differ_by_rounding_have_a_histogram(tmp_path):
    text = vocabulary_like(300, 24)
    one = torch.arange(1.0, 25.0)
    orders = [torch.randperm(24, generator=torch.Generator().manual_seed(i)) for i in range(40)]
    counts = judged(plain(tmp_path, text, torch.stack([one[order] for order in orders])))["groups"]["new"]["norm"]
    assert sum(counts["histogram"]["counts"]) == 40


def test_noise_is_seen_without_text_samples_too(tmp_path):
    text = vocabulary_like(100, 24)
    noise = text.std() * torch.randn(150, 24, generator=torch.Generator().manual_seed(0))
    found = judged(plain(tmp_path, text, noise))
    assert found["null"]["samples"] == 0 and "too few" in found["null"]["undefined"]
    assert found["verdict"]["label"] == "unstructured"
    few = judged(plain(tmp_path, text, text.repeat(2, 1)[:150] + 0.1 * noise))
    assert any("was not judged" in reason["text"] for reason in few["verdict"]["reasons"])


def test_as_many_new_rows_as_text_has_are_compared_with_samples(tmp_path):
    text = vocabulary_like(120, 24)
    assert judged(plain(tmp_path, text, vocabulary_like(100, 24, seed=1)))["null"]["samples"] > 0


@pytest.mark.parametrize("tokens", [4, 5])
def test_so_few_tokens_that_chance_cannot_be_told_are_not_called_unstructured(tmp_path, tokens):
    text = vocabulary_like(300, 24)
    new = vocabulary_like(tokens, 24, seed=1)
    np.save(tmp_path / "r.npy", new.numpy())
    found = judged(plain(tmp_path, text, new), reference=tmp_path / "r.npy")
    assert found["rsa"]["pearson"]["value"] == pytest.approx(1) and found["rsa"]["pearson"]["p_value"] is None
    assert found["verdict"]["label"] == "untested" and "arrangements" in found["verdict"]["reasons"][0]["text"]


def test_one_ordinary_new_row_is_healthy_by_its_distance(tmp_path):
    text = vocabulary_like(300, 24)
    reason = judged(plain(tmp_path, text, vocabulary_like(1, 24, seed=1)))["verdict"]["reasons"][0]
    assert reason["measure"] == "centroid_distance" and reason["value"] > 0.1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e200])
def test_rows_that_cannot_be_computed_with_are_refused_by_id(tmp_path, value):
    new = vocabulary_like(20, 24, seed=1).double()
    new[3, 2] = value
    with pytest.raises(InputError, match=r"rows of group new .* token id 303"):
        judged(plain(tmp_path, vocabulary_like(300, 24).double(), new, torch.float64))


def test_a_base_with_nan_is_refused_by_name(tiny_lm):
    base = tiny_lm("base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][5] = torch.nan
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"base.*NaN or infinity"):
        gti_diag.diagnose(tiny_lm("new", new_tokens=TOKENS), base=base)
