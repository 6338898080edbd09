"""Repair of damaged rows: what is written, what stays, and what training makes of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import gti_diag
from gti_diag.errors import InputError
from gti_train.grounding import row_rules
from gti_train.grounding.repair import read_descriptions, read_scan, repair
from gti_train.grounding.repair_plan import KINDS, plan
from gti_train.model.row_files import digest

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def damaged(tiny_lm):
    """Factory: an untied checkpoint with a zero, a tiny and a NaN input row, in as many shards as asked for."""

    def make(name="damaged", **options):
        folder = tiny_lm(name, tied=False, **options)
        file = next(file for file in folder.glob("*.safetensors") if EMBEDDING in load_file(file))
        tensors = load_file(file)
        tensors[EMBEDDING][300] = 0
        tensors[EMBEDDING][301] *= 1e-17
        tensors[EMBEDDING][302] = torch.nan
        save_file(tensors, file, metadata={"format": "pt"})
        return folder

    return make


def matrix(folder, name=EMBEDDING):
    return next(tensors[name] for file in folder.glob("*.safetensors") if name in (tensors := load_file(file)))


def kinds(folder):
    return [f["kind"] for m in gti_diag.scan(folder)["matrices"].values() for f in m["findings"]]


@pytest.mark.parametrize("rule", ["head", "mean", "description", "copy-of"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_passes_the_scan_and_all_else_is_as_it_was(damaged, tmp_path, rule, dtype):
    folder = damaged(dtype=dtype)
    record = repair(folder, tmp_path / "out", rule=rule, like=" red" if rule == "copy-of" else None,
                    descriptions=dict.fromkeys(tokens(folder, 300, 301, 302), "a red kettle"))  # fmt: skip
    assert kinds(tmp_path / "out") == []
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    changed = {name: (before[name] != after[name]) & ~before[name].isnan() for name in before}
    assert {name for name, differs in changed.items() if bool(differs.any())} == {EMBEDDING}
    assert changed[EMBEDDING].any(1).nonzero()[:, 0].tolist() == [300, 301]
    assert [row["id"] for row in record["matrices"]["input"]["rows"]] == [300, 301, 302]
    assert json.loads((tmp_path / "out" / "repair.json").read_text())["rule"] == rule


def tokens(folder, *ids):
    from gti_diag.tokens.readable import display

    strings = display(gti_diag.open_checkpoint(folder).vocabulary, 400)
    return [strings[id] for id in ids]


def test_head_gives_the_healthy_direction_at_the_median_norm(damaged, tmp_path):
    folder = damaged()
    repair(folder, tmp_path / "out", rule="head")
    rows, head = matrix(tmp_path / "out"), matrix(folder, HEAD)
    healthy = [id for id in range(400) if id not in (300, 301, 302)]
    assert torch.allclose(torch.cosine_similarity(rows[300:303], head[300:303]), torch.ones(3))
    assert rows[300:303].norm(dim=1).tolist() == pytest.approx(
        [float(rows[healthy].norm(dim=1).median())] * 3, rel=1e-5
    )


def test_only_the_shard_with_the_rows_is_written(damaged, tmp_path):
    folder = damaged(max_shard_size="60KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    record = repair(folder, tmp_path / "out", rule="mean", link=True)
    changed = [name for name, file in record["files"].items() if not file["same"]]
    assert len(changed) == 1 and EMBEDDING in load_file(folder / changed[0])
    for shard in shards:
        same = shard.name not in changed
        assert (digest(shard) == record["files"][shard.name]["sha256"]) == same
        assert (shard.stat().st_ino == (tmp_path / "out" / shard.name).stat().st_ino) == same


def test_the_first_gradient_is_back_to_normal(damaged, tiny_lm, tmp_path):
    from transformers import AutoModelForCausalLM

    def gradient(folder):
        model = AutoModelForCausalLM.from_pretrained(folder)
        ids = torch.tensor([[300, 301, 5, 300, 9]])
        model(input_ids=ids, labels=ids).loss.backward()
        return float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())

    folder = damaged()
    repair(folder, tmp_path / "out", rule="head")
    sound = gradient(tiny_lm("sound", tied=False))
    assert gradient(folder) > 20 * sound and gradient(tmp_path / "out") < 2 * sound


def test_ground_trains_the_rows_on_their_descriptions(damaged, tmp_path):
    folder = damaged()
    texts = dict(zip(tokens(folder, 300, 301, 302), ("a red kettle", "a light tent", "a small lamp"), strict=True))
    repair(folder, tmp_path / "start", rule="description", descriptions=texts)
    repair(folder, tmp_path / "ground", rule="ground", descriptions=texts, steps=3)
    start, ground = matrix(tmp_path / "start"), matrix(tmp_path / "ground")
    assert (start != ground).any(1).nonzero()[:, 0].tolist() == [300, 301, 302] and kinds(tmp_path / "ground") == []
    with pytest.raises(InputError, match="trains on descriptions"):
        repair(folder, tmp_path / "other", rule="ground")


def test_a_matrix_stored_twice_stays_one(tiny_lm, tmp_path):
    folder = tiny_lm("tied", tied=True)
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING][300] = 0
    save_file({**tensors, HEAD: tensors[EMBEDDING].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    repair(folder, tmp_path / "out", rule="mean")
    assert torch.equal(matrix(tmp_path / "out"), matrix(tmp_path / "out", HEAD))


def test_in_place_only_on_demand(damaged, tmp_path):
    folder = damaged()
    with pytest.raises(InputError, match="is the checkpoint itself: name another folder, or say --in-place"):
        repair(folder, folder, rule="mean")
    with pytest.raises(InputError, match="--in-place writes into"):
        repair(folder, tmp_path / "out", rule="mean", in_place=True)
    repair(folder, folder, rule="mean", in_place=True)
    assert kinds(folder) == [] and (folder / "repair.json").is_file()


def test_too_much_too_little_and_the_wrong_scan_are_refused(damaged, tiny_lm, tmp_path):
    folder, out = damaged(), tmp_path / "out"
    with pytest.raises(InputError, match=r"3 of 400 rows .* are 0.8%, more than --most 0.5%"):
        repair(folder, out, rule="mean", most=0.005)
    with pytest.raises(InputError, match="nothing to repair"):
        repair(tiny_lm("sound"), out, rule="mean")
    with pytest.raises(InputError, match="the scan is of other rows"):
        repair(folder, out, rule="mean", document=gti_diag.scan(tiny_lm("other")))
    with pytest.raises(InputError, match=r"--ids 400: .* has rows 0 to 399"):
        repair(folder, out, rule="mean", ids=[400])
    assert not out.exists()


def test_rules_that_cannot_be_used_say_why(damaged, tiny_lm, tmp_path):
    folder, out = damaged(), tmp_path / "out"
    tied = tiny_lm("tied")
    for options, message in (
        ({"rule": "median"}, "choose one of head, mean"),
        ({"rule": "copy-of"}, "needs the token to copy"),
        ({"rule": "copy-of", "like": "no such"}, "is no token of"),
        ({"rule": "ground", "in_place": True}, "--in-place writes into|trains from a repaired copy"),
    ):
        with pytest.raises(InputError, match=message):
            repair(folder, out, **options)
    with pytest.raises(InputError, match="stores no head apart"):
        repair(tied, out, rule="head", ids=[300])
    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors[HEAD][300] = 0
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="is zero or not finite: use --rule mean"):
        repair(broken, out, rule="head")


def test_padding_is_left_alone_and_kinds_are_chosen():
    finding = {"kind": "zero", "ids": [3, 9], "padding": [9]}
    document = {"matrices": {"input": {"findings": [finding, {"kind": "copies", "ids": [1, 2], "padding": []}]}}}
    found = plan(document, ids=None, kinds=KINDS)
    assert found.ids == {"input": [3]} and found.left == ("copies",) and found.damaged == {1, 2, 3, 9}
    assert plan(document, ids=[5, 5, 4], kinds=KINDS).ids == {"input": [4, 5]}


def test_rows_of_every_rule_are_apart_and_of_a_healthy_length():
    generator = torch.Generator().manual_seed(0)
    healthy = row_rules.Healthy(torch.randn(500, 32, generator=generator, dtype=torch.float64) + 0.1)
    low, high = float(healthy.norms.min()), float(healthy.norms.max())
    for rows in (row_rules.mean_rows(healthy, 20, generator), row_rules.copied_rows(healthy.rows[0], healthy, 20, generator),
                 row_rules.described_rows([healthy.rows[:3]] * 20, healthy, generator)):  # fmt: skip
        lengths = rows.norm(dim=1)
        assert float(lengths.min()) >= 0.9 * low and float(lengths.max()) <= 1.1 * high
        assert float(torch.pdist(rows).min()) > 0.01 * float((healthy.rows - healthy.mean).norm(dim=1).mean())


def test_files_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    for read, message in ((read_scan, "is not what"), (read_descriptions, "must hold a JSON object")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.json")
        with pytest.raises(InputError, match="cannot read"):
            read(tmp_path / "none.json")
