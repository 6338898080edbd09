"""What stands around the commands: the GitHub Action's shell steps, the pre-commit hook, the documented examples."""

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.gti_diag.gate.gate_cases import HEALTHY, analysis

ROOT = Path(__file__).parents[3]
CODES = [f"<{level}_{code}>" for level in "abc" for code in range(16)]


@pytest.fixture
def place(tmp_path) -> Path:
    """A working folder with a good and a bad analysis and a baseline of the good one."""
    from gti_diag.gate.baseline import write_baseline

    (tmp_path / "good ckpt.json").write_text(json.dumps(HEALTHY))  # a space: inputs are not split
    (tmp_path / "bad.json").write_text(json.dumps(analysis("collapsed", new__dispersion_ratio=3e-5)))
    write_baseline(HEALTHY, tmp_path / "baseline.json")
    return tmp_path


def act(place: Path, **inputs: str) -> subprocess.CompletedProcess:
    """Run the shell steps of action.yml one after the other, as a runner does, until one fails."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert set(inputs) <= set(action["inputs"])
    given = {name: inputs.get(name, field.get("default")) for name, field in action["inputs"].items()}
    missing = [name for name, field in action["inputs"].items() if field.get("required") and not given[name]]
    assert not missing

    def filled(text: str) -> str:
        text = text.replace("${{ github.action_path }}", str(ROOT))
        return re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda match: given[match[1]], text)

    runner = {"GITHUB_OUTPUT": str(place / "output"), "GITHUB_STEP_SUMMARY": str(place / "summary"),
              "RUNNER_TEMP": str(place / "temp")}  # fmt: skip
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input inside a script is an injection"
        environment = {**os.environ, **runner, **{name: filled(value) for name, value in step["env"].items()}}
        done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                              cwd=place, env=environment, capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            break
    return done


def test_the_action_passes_and_leaves_its_reports(place):
    done = act(place, checkpoint="good ckpt.json", baseline="baseline.json", policy="strict", python=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    outputs = dict(line.split("=", 1) for line in (place / "output").read_text().splitlines())
    assert all(Path(path).stat().st_size for path in outputs.values())
    assert set(outputs) == set(yaml.safe_load((ROOT / "action.yml").read_text())["outputs"])
    assert "✅ passed" in (place / "summary").read_text()


def test_the_action_fails_on_a_regression_and_hands_extra_options_on(place):
    args = "--json findings.json --quiet"
    done = act(place, checkpoint="bad.json", baseline="baseline.json", args=args, python=sys.executable)
    assert done.returncode == 1
    assert done.stdout == ""
    assert json.loads((place / "findings.json").read_text())["passed"] is False
    assert "❌" in (place / "summary").read_text()


def test_all_lines_of_args_are_read(place):
    done = act(place, checkpoint="bad.json", args="--quiet\n--json\nfindings.json\n", python=sys.executable)
    assert (done.returncode, done.stdout) == (1, "")
    assert (place / "findings.json").exists()


@pytest.mark.parametrize(
    "inputs", [{"checkpoint": "--help"}, {"checkpoint": "good ckpt.json", "base": "--help", "policy": "--help"}]
)
def test_no_input_is_taken_for_an_option(place, inputs):
    done = act(place, **inputs, python=sys.executable)
    assert done.returncode == 2
    assert "--help" in done.stderr


def test_the_action_does_not_run_what_its_inputs_say(place):
    done = act(place, checkpoint="$(touch owned)", policy="`touch owned`", python=sys.executable)
    assert done.returncode == 2
    assert not (place / "owned").exists()


def test_the_pre_commit_hook_runs_the_command_that_is_installed(place):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    script = Path(sys.executable).parent / hook["entry"].split()[0]
    assert script.exists()
    for name, code in (("good ckpt.json", 0), ("bad.json", 1)):
        arguments = [*hook["entry"].split()[1:], name, "--baseline", "baseline.json"]
        done = subprocess.run([str(script), *arguments], cwd=place, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    pattern = re.compile(hook["files"])
    assert [bool(pattern.search(name)) for name in ("m/model.safetensors", "m/gti.json", "m/README.md")] == [
        True,
        True,
        False,
    ]
    assert hook["pass_filenames"] is False


def test_documented_commands_exist_with_their_options():
    """Every gti-diag line in docs/ci.md names a command and options that its --help lists."""
    import typer
    from typer.main import get_command

    from gti_diag import cli

    commands = get_command(cli.app).commands
    lines = re.findall(r"^\s*(?:- )?(gti-diag .*)$", (ROOT / "docs" / "ci.md").read_text(), flags=re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        _, name, *rest = shlex.split(line.split("#")[0])
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {part for part in rest if part.startswith("-")} <= known, line
    assert isinstance(cli.app, typer.Typer)


def test_documented_policy_is_one(tmp_path):
    from gti_diag.gate.policy import read_policy

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), flags=re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    assert len(read_policy(tmp_path / "mine.toml").rules) == 4


def test_the_python_examples_run_as_documented(tiny_lm, tmp_path):
    from safetensors.torch import load_file, save_file

    ckpt, other = tiny_lm("ckpt", new_tokens=CODES), tiny_lm("other", new_tokens=CODES)
    tensors = load_file(other / "model.safetensors")
    for rows in (rows for name, rows in tensors.items() if name.endswith("embed_tokens.weight")):
        rows[-len(CODES) :] = rows[: -len(CODES)].mean(0)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    policy = tmp_path / "policy.toml"
    policy.write_text('verdict_not = ["collapsed", "degenerate"]')
    text = (ROOT / "docs" / "python-api.md").read_text()
    names = {"ckpt": ckpt, "other": other, "out": tmp_path / "out", "policy": policy, "torch": torch}
    test = doctest.DocTestParser().get_doctest(text, names, "python-api.md", "docs/python-api.md", 0)
    assert len(test.examples) > 15
    printed: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    doctest.DocTestRunner(optionflags=flags).run(test, out=printed.append)
    assert not printed, "".join(printed)
