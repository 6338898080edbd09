"""The gate: policies, baselines, and what each regression is called."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch

import gti_diag
from gti_diag.errors import InputError
from gti_diag.gate import findings as gate
from gti_diag.gate.baseline import baseline, read_baseline, write_baseline
from gti_diag.gate.policy import read_policy, shipped
from gti_diag.gate.scalars import numbers
from tests.gti_diag.gate.gate_cases import HEALTHY, analysis


def policy(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def only_failure(found: gate.Findings) -> gate.Finding:
    assert len(found.failures) == 1, str(found)
    return found.failures[0]


# --- policies -------------------------------------------------------------------------------------------------------


def test_the_shipped_policies_pass_a_healthy_checkpoint_and_themselves_as_baseline():
    assert shipped() == ["default", "strict"]
    for name in shipped():
        found = gate.check(HEALTHY, policy=name, baseline=baseline(HEALTHY))
        assert found.passed, str(found)
        assert not [f for f in found.findings if f.status == "skip"]


@pytest.mark.parametrize(
    "text,message",
    [
        ("verdict_not = ['ill']", "list some of collapsed"),
        ("allow_untied = 'no'", "write true or false"),
        ("[new.effective_rank]\nminimum = 2", r"\[new.effective_rank\] has no bound 'minimum'"),
        ("[new.effective_rank]\nmin = 'two'", "min is 'two', it should be a number"),
        ("[new.effective_rank]\nmax_drop = -0.1", "shares of 0 or more"),
        ("verdicts = []", "unknown setting 'verdicts'"),
        ("[new]\nmin = 3", "unknown setting 'new.min'"),
        ("[new.", "is not TOML"),
        ("[new.effective_rank]\nmin = inf", "it should be a finite number"),
        ("[new.effective_rank]\nmax_drop = nan", "max_drop"),
        ("[new.effective_rank]\nmin = true", "it should be a number"),
        ("[new.effective_rank]\ntolerance = 0.1", "bounds nothing"),
        ("verdict_not = [[]]", "list some of collapsed"),
        ("allow_untied = true", "asks for nothing"),
        ("", "asks for nothing"),
    ],
)
def test_a_policy_that_says_nothing_clear_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_policy(policy(tmp_path, text))


def test_an_unknown_policy_lists_the_shipped_ones():
    with pytest.raises(InputError, match="no policy 'lenient': give a TOML file or one of default, strict"):
        read_policy("lenient")


def test_a_misspelt_measure_is_not_skipped_in_silence(tmp_path):
    rules = policy(tmp_path, "[new.efective_rank]\nmin = 2")
    with pytest.raises(InputError, match=r"'new.efective_rank' is no measure .* did you mean 'new.effective_rank'"):
        gate.check(HEALTHY, policy=rules)


def test_a_rule_may_name_one_matrix(tmp_path):
    both = copy.deepcopy(HEALTHY)
    both["matrices"]["output"] = copy.deepcopy(both["matrices"]["input"])
    both["matrices"]["output"]["groups"]["new"]["mean_cosine"] = 0.9
    found = gate.check(both, policy=policy(tmp_path, "[output.new.mean_cosine]\nmax = 0.5"))
    assert only_failure(found).matrix == "output"
    assert gate.check(both, policy=policy(tmp_path, "[input.new.mean_cosine]\nmax = 0.5")).passed


@pytest.mark.parametrize(
    "rule,value,status",
    [
        ("min = 3", 2.8, "fail"), ("min = 2.85", 2.8, "pass"), ("min = 2.8", 2.8, "pass"), ("max = 2", 2.8, "fail"),
        ("max = 2.75", 2.8, "pass"), ("min = 3\ntolerance = 0.1", 2.8, "pass"), ("min = 2.85\ntolerance = 0.0", 2.8, "fail"),
        ("min = 1", None, "fail"),
    ],
)  # fmt: skip
def test_bounds_forgive_the_sampling_interval(tmp_path, rule, value, status):
    """The text null of effective_rank_centred is 2.7 to 2.9: half its width, 0.1, is forgiven."""
    found = gate.check(
        analysis(new__effective_rank_centred=value), policy=policy(tmp_path, f"[new.effective_rank_centred]\n{rule}")
    )
    assert [f.status for f in found.findings] == [status]


@pytest.mark.parametrize(
    "rule,passing,failing", [("max_drop", 0.38, 0.31), ("max_rise", 0.42, 0.49), ("max_change", 0.38, 0.49)]
)
def test_changes_forgive_the_sampling_intervals_of_both_sides(tmp_path, rule, passing, failing):
    """RSA 0.40 ± 0.04 on both sides: √2 · 0.04 = 0.057 on top of the 5 % (0.02) that the rule allows."""
    rules = policy(tmp_path, f"[rsa.centred]\n{rule} = 0.05")
    before = baseline(HEALTHY)

    def moved(value):
        return gate.check(analysis(rsa__centred__value=value, rsa__centred__interval=[value - 0.04, value + 0.04]),
                          baseline=before, policy=rules)  # fmt: skip

    assert moved(passing).passed
    assert "baseline 0.4" in only_failure(moved(failing)).expected


def test_a_measure_that_stopped_existing_fails_with_its_reason(tmp_path):
    gone = analysis(
        new__effective_rank_centred=None, new__undefined={"effective_rank_centred": "all rows are identical"}
    )
    rules = policy(tmp_path, "[new.effective_rank_centred]\nmax_drop = 0.5")
    finding = only_failure(gate.check(gone, baseline=baseline(HEALTHY), policy=rules))
    assert finding.got == "undefined (all rows are identical)"


def test_agreement_is_that_of_the_verdict_with_the_reference_to_judge_by_and_every_other_is_shown():
    made = analysis(rsa__read="counts_held", rsa__counts_held={"value": 0.3, "interval": None, "p_value": 0.001})
    made["matrices"]["input"]["rsa"]["levels"]["2"]["counts_held"] = {"value": 0.1, "interval": None, "p_value": 0.2}
    made["matrices"]["input"]["rsa"]["levels"]["1"]["counts_held"] = {"value": None, "interval": None, "p_value": None}
    found = numbers(made["matrices"]["input"])
    values = {
        name: found[f"rsa.{name}"].value
        for name in ("agreement", "level_2.agreement", "codebooks.agreement", "centred")
    }
    assert values == {"agreement": 0.3, "level_2.agreement": 0.1, "codebooks.agreement": 0.21, "centred": 0.4}
    assert gate.check(made).notes == (
        "input rows against the means of their items: RSA with counts held 0.30 (level 2 0.10)",
        "input rows against their codebook vectors: centred RSA 0.21",
    )


def test_without_a_baseline_rules_on_change_are_skipped_not_passed():
    found = gate.check(HEALTHY)
    assert found.passed
    assert {f.measure for f in found.findings if f.status == "skip"} >= {"rsa.agreement", "text.norm.mean"}


@pytest.mark.parametrize("measure", ["rsa.centred", "drift.text.mean_relative"])
@pytest.mark.parametrize("bound", ["min = 0.1", "max_drop = 0.5"])
def test_a_rule_on_what_nobody_measured_fails_unless_it_says_otherwise(tmp_path, measure, bound):
    blind = copy.deepcopy(HEALTHY)
    blind["matrices"]["input"] |= {"rsa": None, "rsa_references": {}, "drift": None}
    rules = f"verdict_not = ['collapsed']\n[{measure}]\n{bound}"
    assert only_failure(gate.check(blind, policy=policy(tmp_path, rules))).got == "not measured"
    found = gate.check(blind, policy=policy(tmp_path, rules + "\nif_measured = true"))
    assert [f.status for f in found.findings] == ["pass", "skip"]


def test_what_a_baseline_lacks_or_has_alone_fails(tmp_path):
    rules = policy(tmp_path, "[new.mean_cosine]\nmax_change = 0.5")
    without = baseline(HEALTHY)
    del without["matrices"]["input"]["measures"]["new.mean_cosine"]
    assert "nothing in a baseline" in only_failure(gate.check(HEALTHY, baseline=without, policy=rules)).got
    blind = copy.deepcopy(HEALTHY)
    blind["matrices"]["input"]["drift"] = None
    rules = policy(tmp_path, "[drift.text.moved]\nmax_rise = 0\nif_measured = true")
    gone = only_failure(gate.check(blind, baseline=baseline(HEALTHY), policy=rules))
    assert gone.got == "not measured, but the baseline has it"


def test_a_check_of_nothing_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"nothing was checked.* give --baseline"):
        gate.check(HEALTHY, policy=policy(tmp_path, "[new.dispersion]\nmax_drop = 0.1"))


def test_no_verdict_is_no_pass():
    untold = analysis()
    untold["matrices"]["input"]["verdict"]["label"] = None
    assert only_failure(gate.check(untold)).got.startswith("no verdict (")


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda m: m["input"].update(measures={}), "matrices.input.measures is empty"),
        (lambda m: m.clear(), "matrices is empty"),
        (lambda m: m["input"]["measures"]["rsa.centred"].update(noise=math.inf), "Infinity is not a number"),
        (lambda m: m["input"]["measures"]["rsa.centred"].update(noise=-1), "noise is -1"),
        (lambda m: m["input"]["measures"]["rsa.centred"].update(value="0.4"), "value is '0.4', it should be a number"),
        (lambda m: m["input"]["measures"]["rsa.centred"].update(slack=1), "a key .*slack' that it must not have"),
        (lambda m: m["input"]["measures"]["rsa.centred"].update(value=10**400), "a number of 401 digits"),
    ],
)
def test_a_spoilt_baseline_is_refused(tmp_path, spoil, message):
    before = baseline(HEALTHY)
    spoil(before["matrices"])
    (tmp_path / "baseline.json").write_text(json.dumps(before))
    with pytest.raises(InputError, match=message):
        gate.check(HEALTHY, baseline=tmp_path / "baseline.json")


def test_no_new_tokens_is_no_pass():
    bare = copy.deepcopy(HEALTHY)
    del bare["tokens"]["groups"]["new"]
    with pytest.raises(InputError, match="no new tokens to check"):
        gate.check(bare)


def test_noise_is_the_null_scaled_to_the_value_and_the_standard_error_of_a_mean():
    found = numbers(analysis(new__dispersion_ratio=0.25)["matrices"]["input"])
    assert found["new.dispersion_ratio"].noise == pytest.approx(0.25 * 0.1 / 0.8)
    assert found["new.mean_cosine"].noise == pytest.approx(0.1)  # absolute: cosines pass through 0
    assert found["new.norm.mean"].noise == pytest.approx(1.96 * 0.1 / math.sqrt(4))
    assert found["rsa.level_2.centred"].noise == pytest.approx(0.1)
    assert "new.singular_values" not in found


# --- causes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verdict,changes,cause",
    [
        ("collapsed", {"new__unique_rows": 1}, "exact copies of one vector"),
        ("collapsed", {"new__dispersion_ratio": 3e-5}, "mean_resizing"),
        ("collapsed", {"new__dispersion_ratio": 0.004}, "hardly left a common start"),
        ("collapsed", {"new__dispersion": 0.0009, "new__dispersion_ratio": 0.004}, "rounding of bfloat16"),
        ("degenerate", {"new__unique_rows": 2}, "2 rows repeat the vector"),
        ("collapsed", {"new__zero_rows": 4}, "4 new rows are zero"),
        ("unstructured", {"rsa__centred__value": 0.01}, "random start that was never trained"),
    ],
)
def test_a_failed_verdict_names_its_likely_cause(verdict, changes, cause):
    failures = gate.check(analysis(verdict, **changes)).failures
    assert any(f.measure == "verdict" and cause in f.cause for f in failures), failures


def test_a_partial_loss_of_structure_names_the_level_that_fell_most():
    worse = analysis(rsa__centred__value=0.2, rsa__levels__2__centred__value=0.02)
    finding = only_failure(gate.check(worse, baseline=baseline(HEALTHY)))
    assert "level 2 fell most" in finding.cause


def test_shrunken_old_rows_point_at_weight_decay():
    found = gate.check(analysis(text__norm={"mean": 0.891, "std": 0.1}), baseline=baseline(HEALTHY))
    assert "shrank by 1.00%: weight decay" in only_failure(found).cause


@pytest.mark.parametrize(
    "changes,kept",
    [({"notes": ["silently untied: the config says tied"], "tied": False}, False), ({"tied": False}, True)],
)
def test_a_head_that_came_apart_is_found_from_the_files_or_from_the_baseline(changes, kept):
    found = gate.check(analysis(**changes), baseline=baseline(HEALTHY) if kept else None)
    assert "modules_to_save" in only_failure(found).cause


def test_a_tied_head_that_is_stored_beside_the_input_is_held_against_the_inputs_baseline():
    twice = analysis()
    twice["matrices"]["output"] = copy.deepcopy(twice["matrices"]["input"])
    assert gate.check(twice, baseline=baseline(HEALTHY)).passed
    twice["matrices"]["output"]["groups"]["new"]["dispersion_ratio"] = 0.1
    finding = only_failure(gate.check(twice, baseline=baseline(HEALTHY)))
    assert (finding.matrix, finding.measure) == ("output", "new.dispersion_ratio")


# --- baselines ------------------------------------------------------------------------------------------------------


def test_a_baseline_file_is_small_sorted_and_read_back_as_written(tmp_path):
    path = write_baseline(HEALTHY, tmp_path / "baseline.json")
    text = path.read_text()
    assert read_baseline(path) == baseline(HEALTHY)
    assert '"new.dispersion_ratio": {"value": 0.5, "noise": 0.0625}' in text
    measures = [line.split('"')[1] for line in text.splitlines() if '"noise"' in line]
    assert measures == sorted(measures)
    assert len(text) < 4000


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda b: b["settings"].update(dim=64), "the row length differs"),
        (lambda b: b["settings"].update(new_tokens_digest="0"), "the set of new tokens differs"),
        (lambda b: b["settings"].update(reference=None), "the reference for RSA differs"),
        (lambda b: b["settings"].update(sampled={"text": 100}), "the sampling of rows"),
        (lambda b: b["matrices"].update(output={}), "also has the output matrix"),
    ],
)
def test_incomparable_settings_are_refused(spoil, message):
    before = baseline(HEALTHY)
    spoil(before)
    with pytest.raises(InputError, match=message):
        gate.check(HEALTHY, baseline=before)


def test_the_order_of_new_tokens_does_not_matter_but_which_they_are_does(tmp_path):
    reordered = copy.deepcopy(HEALTHY)
    reordered["matrices"]["input"]["map"]["new"]["tokens"].reverse()
    assert gate.check(reordered, baseline=baseline(HEALTHY)).passed
    reordered["matrices"]["input"]["map"]["new"]["tokens"][0] = "<a_9>"
    with pytest.raises(InputError, match="set of new tokens"):
        gate.check(reordered, baseline=baseline(HEALTHY))


def test_another_reference_under_the_same_name_is_noticed(tmp_path):
    from safetensors.torch import save_file

    from gti_diag.gate.baseline import settings

    found = copy.deepcopy(HEALTHY)
    file = tmp_path / "item_means.safetensors"
    found["matrices"]["input"]["rsa"]["reference"] = str(file)
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    digests = []
    for rows in (vectors, vectors, vectors + 1):
        save_file({"item_means": rows}, file)
        digests.append(settings(found)["reference_digest"])
    assert digests[0] == digests[1] != digests[2]
    assert settings(HEALTHY)["reference_digest"] is None
    notes = gate.check(HEALTHY, baseline=baseline(found)).notes
    assert any("content of the reference" in note for note in notes)


@pytest.mark.parametrize(
    "content,message",
    [
        ("{}", "is not a baseline: make one with"),
        ("[", "is not usable JSON"),
        (json.dumps({"kind": "gti-diag baseline", "schema": 99}), "baseline schema 99, this gti-diag reads 1"),
    ],
)
def test_files_that_are_no_baseline_are_refused(tmp_path, content, message):
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        gate.check(HEALTHY, baseline=path)


def test_a_missing_baseline_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="make one with `gti-diag baseline`"):
        gate.check(HEALTHY, baseline=tmp_path / "none.json")


# --- real checkpoints -----------------------------------------------------------------------------------------------

CODES = [f"<{level}_{code}>" for level in "abc" for code in range(16)]


@pytest.fixture
def extended(tiny_lm):
    """A tiny checkpoint with 48 code tokens whose rows are drawn like its vocabulary's."""
    return tiny_lm("extended", new_tokens=CODES)


def rewrite(folder: Path, change) -> Path:
    """Apply `change(rows, ids)` to the stored input matrix."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    rows = tensors[name]
    tensors[name] = change(rows, torch.arange(len(rows) - len(CODES), len(rows))).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_check_of_a_real_checkpoint_from_python(extended, tmp_path):
    first = gti_diag.diagnose(extended)
    before = write_baseline(first, tmp_path / "baseline.json")
    rules = policy(tmp_path, 'verdict_not = ["collapsed", "degenerate"]\n[text.norm.mean]\nmax_change = 0.005')
    assert gti_diag.check(extended, baseline=before, policy=rules).passed

    def half_untrained(rows, ids):
        rows[ids[::2]] = rows[: ids[0]].mean(0)
        return rows * 0.99

    found = gti_diag.check(rewrite(extended, half_untrained), baseline=before, policy=rules)
    assert {f.measure for f in found.failures} == {"verdict", "text.norm.mean"}
    assert "repeat the vector" in str(found)
    assert "weight decay" in str(found)


# --- the command line -----------------------------------------------------------------------------------------------


def run(capsys, monkeypatch, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `gti-diag ARGUMENTS`, in this process."""
    import sys

    from gti_diag import cli

    monkeypatch.setattr(sys, "argv", ["gti-diag", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    printed = capsys.readouterr()
    return left.value.code or 0, printed.out, printed.err


@pytest.fixture
def written(tmp_path):
    """`written(analysis)` is the path of its analysis.json."""

    def write(found: dict, name: str = "analysis.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(found))
        return path

    return write


def test_baseline_check_and_update_at_the_terminal(capsys, monkeypatch, tmp_path, written):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    good, bad = written(HEALTHY), written(analysis("collapsed", new__dispersion_ratio=3e-5), "bad.json")
    file = tmp_path / "baseline.json"
    assert run(capsys, monkeypatch, "baseline", good, "-o", file)[:2] == (0, f"{file}: baseline of {good} (healthy)\n")
    assert run(capsys, monkeypatch, "check", good, "--baseline", file)[0] == 0

    code, out, err = run(capsys, monkeypatch, "check", bad, "--baseline", file)
    assert code == 1 and err.startswith("note: input rows against the means of their items: centred RSA 0.40")
    assert "input verdict: expected not collapsed" in out
    assert "likely cause: as close together as resize_token_embeddings" in out

    kept = file.read_text()
    code, out, _ = run(capsys, monkeypatch, "check", bad, "--baseline", file, "--update")
    assert code == 1
    assert "left as it was" in out
    assert file.read_text() == kept
    moved = written(analysis(new__effective_rank_centred=1.5), "moved.json")
    assert run(capsys, monkeypatch, "check", moved, "--baseline", file)[0] == 1
    assert run(capsys, monkeypatch, "check", moved, "--baseline", file, "--update")[0] == 0
    assert run(capsys, monkeypatch, "check", moved, "--baseline", file)[0] == 0


def test_all_reports_are_written_and_the_github_summary_appended(capsys, monkeypatch, tmp_path, written):
    summary = tmp_path / "step_summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "sarif", "summary", "json")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    code, out, _ = run(capsys, monkeypatch, "check", written(analysis("collapsed")), "--quiet", *options)
    assert (code, out) == (1, "")
    assert all(path.stat().st_size for path in files.values())
    assert summary.read_text().startswith("before\n## Embedding check: ❌ 1 failed")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--policy", "lenient"], "no policy 'lenient'"),
        (["--update"], "name one"),
        (["--baseline", "absent.json"], "cannot read baseline absent.json"),
    ],
)
def test_bad_usage_is_two_and_one_line(capsys, monkeypatch, written, arguments, message):
    code, out, err = run(capsys, monkeypatch, "check", written(HEALTHY), *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_failed_says_what_to_do_and_how_to_check_it():
    found = gate.check(analysis("collapsed", new__unique_rows=1, new__dispersion_ratio=0.0))
    (failed,) = [finding for finding in found.failures if finding.measure == "verdict"]
    assert "gti-train extend" in failed.action and failed.verify.startswith("gti-diag analyze runs/gti must")
