"""A full disk, an interrupt, two writers at once: whole files or none."""

import json
import os
import subprocess
import sys
import threading

import pytest

from gti_diag import document, files
from gti_diag.errors import InputError
from gti_diag.render import report

TOKENS = [f"<a_{code}>" for code in range(8)]
LIMITED = """
import resource, sys
from gti_diag import cli
import gti_diag.analysis.diagnosis, gti_diag.render, matplotlib.font_manager  # what caches at import does so before the disk is full
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file may grow beyond 4 kB: the disk is full
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["gti-diag", "analyze", *sys.argv[1:], "--quiet"]
cli.main()
"""


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(tiny_lm, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED, str(tiny_lm("n", new_tokens=TOKENS)), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("gti-diag: cannot write") and "Traceback" not in done.stderr
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_an_interrupt_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    document.write_json([{"schema": 1, "x": "old"}], tmp_path / "analysis.json")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        document.write_json([{"schema": 1, "x": "new"}], tmp_path / "analysis.json")
    assert json.loads((tmp_path / "analysis.json").read_text())["x"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["analysis.json"]


def test_two_writers_of_one_folder_never_mix(tmp_path):
    documents = [{"schema": 1, "who": name, "numbers": [float(i) for i in range(3000)]} for name in "ab"]

    def write(content):
        for _ in range(30):
            document.write_json([content], tmp_path / "analysis.json")

    threads = [threading.Thread(target=write, args=(document,)) for document in documents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "analysis.json").exists():
            assert json.loads((tmp_path / "analysis.json").read_text()) in documents
    assert [path.name for path in tmp_path.iterdir()] == ["analysis.json"]


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(report.os, "access", lambda *_: False)  # root may write anywhere, so ask as another would
    with pytest.raises(InputError, match="is not a folder that may be written; choose another --out"):
        report.check_writable(tmp_path / "x", ("json",))


@pytest.mark.parametrize("failure", [InputError("cannot write"), KeyboardInterrupt()])
def test_a_report_that_fails_late_leaves_the_old_one(tmp_path, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    (tmp_path / "summary.md").write_text("old")
    monkeypatch.setattr("gti_diag.render.markdown.summary", lambda _: "new")
    monkeypatch.setattr("gti_diag.render.figures", fail)
    with pytest.raises(type(failure), match=f"^{failure}$"):
        report.write([{"schema": 1}], tmp_path)
    assert (tmp_path / "summary.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_a_pipe_is_written_through_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "whole")
    reader.join()
    assert got == ["whole"] and pipe.is_fifo()


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_what_killed_runs_left_is_removed_by_age_and_owner(tmp_path):
    host = files._mark().split("-")[1]
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout.strip()
    gone, old = tmp_path / f".part-{host}-{dead}-a", tmp_path / f".part-elsewhere-{os.getpid()}-b"
    running, young = tmp_path / f".part-{host}-{os.getpid()}-c", tmp_path / f".part-elsewhere-{dead}-d"
    waiting, other = tmp_path / f".part-{host}-{dead}-e-old", tmp_path / ".part-of-mine"
    for folder in (gone, old, running, young, waiting, other):
        folder.mkdir()
        (folder / "f").touch()
    os.utime(old, (0, 0))
    with files.all_or_none(tmp_path) as stage:
        (stage / "report").touch()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"report", running.name, young.name, waiting.name, other.name}


TERMINATED = """
import sys, time
from pathlib import Path
from gti_diag.cli import shell
from gti_diag.files import all_or_none
def app(prog_name):
    with all_or_none(Path(sys.argv[1])):
        print("begun", flush=True)
        while True:
            time.sleep(0.05)  # not once for long: a signal between Python's last look for one and the call does not end the call
shell.run(app, "gti-diag")
"""


def test_sigterm_cleans_up_and_says_so(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "gti-diag: interrupted\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["1e400", "9999999999GB", "1e19"])
def test_no_machine_has_so_much_memory(text):
    with pytest.raises(InputError, match="more than any machine has"):
        files.parse_bytes(text)
