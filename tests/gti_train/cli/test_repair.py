"""gti-train repair at the terminal."""

import pytest
from safetensors.torch import load_file, save_file

from gti_diag.errors import InputError
from gti_train.cli.options import parse_ids
from gti_train.cli.repair import chosen_kinds

EMBEDDING = "model.embed_tokens.weight"


def test_a_scan_is_repaired_and_the_change_is_told(command, tiny_lm, tmp_path):
    from gti_diag import scan
    from gti_diag.document import dumps

    folder = tiny_lm("damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors[EMBEDDING][300] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "scan.json").write_text(dumps(scan(folder)))
    result = command("repair", folder, "--scan", tmp_path / "scan.json", "--rule", "mean", "--out", tmp_path / "out")
    assert result[0] == 0 and "input: 1 rows by mean" in result[1] and "what changed is in repair.json" in result[1]
    again = command("repair", tmp_path / "out", "--rule", "mean", "--out", tmp_path / "again")
    assert again[0] == 2 and "nothing to repair" in again[2]


def test_ids_and_kinds_are_checked():
    assert parse_ids("3, 17,40:43") == [3, 17, 40, 41, 42] and chosen_kinds("zero,copies") == ("zero", "copies")
    for text in ("a", "3:", "5:5", "-1"):
        with pytest.raises(InputError, match="--ids"):
            parse_ids(text)
    with pytest.raises(InputError, match=r"--ids '3,0:99999999999999': 0:99999999999999 is more than 10,000,000 rows"):
        parse_ids("3,0:99999999999999")
    with pytest.raises(InputError, match="choose some of not_finite"):
        chosen_kinds("old_row_moved")
