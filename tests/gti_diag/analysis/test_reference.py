"""Reference vectors from files: every format, every way to be wrong."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gti_diag.analysis.reference import load_reference
from gti_diag.errors import InputError

TOKENS = ["<a_0>", "<a_1>", "<b_0>"]
MATRIX = torch.arange(12.0).reshape(3, 4) + 1


def keyed():
    return {token: row.clone() for token, row in zip(reversed(TOKENS), MATRIX.flip(0), strict=True)}


WRITERS = {
    "m.npy": lambda path: np.save(path, MATRIX.numpy()),
    "m.npz": lambda path: np.savez(path, anything=MATRIX.numpy()),
    "k.npz": lambda path: np.savez(path, **{token: row.numpy() for token, row in keyed().items()}),
    "m.safetensors": lambda path: save_file({"codebooks": MATRIX}, path),
    "k.safetensors": lambda path: save_file(keyed(), path),
    "m.pt": lambda path: torch.save(MATRIX, path),
    "k.pt": lambda path: torch.save(keyed(), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_rows_in_token_order(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = load_reference(tmp_path / name, TOKENS)
    assert found.dtype == torch.float64 and torch.equal(found, MATRIX.double())


def broken(path, content):
    {"npy": lambda: np.save(path, content)}.get(path.suffix[1:], lambda: path.write_bytes(content))()
    return path


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("a.npy", np.ones((2, 4)), "has 2 rows, but there are 3 new tokens"),
        ("a.npy", np.ones(3), r"shape \(3,\)"),
        ("a.npy", np.array([[1, 2], [np.nan, 1], [1, 1]]), r"row 1 \('<a_1>'\) of the reference holds NaN"),
        ("a.safetensors", b"junk", r"cannot be read as a \.safetensors file"),
        ("a.pt", b"junk", r"cannot be read as a \.pt file"),
        ("a.csv", b"1,2", r"a reference is one of \.npy \.npz \.safetensors \.pt"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, words):
    with pytest.raises(InputError, match=words):
        load_reference(broken(tmp_path / name, content), TOKENS)


def test_a_missing_file_and_a_missing_token(tmp_path):
    with pytest.raises(InputError, match="no such reference file"):
        load_reference(tmp_path / "gone.npy", TOKENS)
    np.savez(tmp_path / "k.npz", **{"<a_0>": np.ones(2), "<a_1>": np.ones(2)})
    with pytest.raises(InputError, match="no vector for 1 of 3 new tokens, the first is '<b_0>'"):
        load_reference(tmp_path / "k.npz", TOKENS)


def test_vectors_of_different_length_are_refused(tmp_path):
    np.savez(tmp_path / "k.npz", **{"<a_0>": np.ones(2), "<a_1>": np.ones(3), "<b_0>": np.ones(2)})
    with pytest.raises(InputError, match="the reference vectors differ in length"):
        load_reference(tmp_path / "k.npz", TOKENS)


def test_a_pickle_that_needs_code_is_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Runs()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"cannot be read as a \.pt file"):
        load_reference(tmp_path / "evil.pt", TOKENS)
    assert not (tmp_path / "ran").exists()
