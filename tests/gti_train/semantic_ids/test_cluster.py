"""Shards one after the other, and two workers of a Ray cluster, give the codes of one machine."""

from collections import Counter

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow.parquet import read_table, write_table

from gti_diag.errors import InputError
from gti_train.semantic_ids.cluster import cluster_codes
from gti_train.semantic_ids.making import make_ids
from gti_train.semantic_ids.quantiser import Quantiser
from gti_train.semantic_ids.quantisers import fit
from gti_train.semantic_ids.shards import encoded, moved_prefixes, placed, sample, separated, shard_files

from .cases import spread

ROWS = 90


@pytest.fixture(scope="module")
def vectors():
    """Thirty items of ninety are alike: their prefix holds more than the last level has codes."""
    rows = spread(rows=ROWS, dim=4)
    rows[:30] = rows[0] + 0.001 * spread(rows=30, dim=4, seed=1)
    return rows


@pytest.fixture(scope="module")
def quantiser(vectors):
    return fit(vectors, quantiser="residual-kmeans", sizes=(4, 4, 8)).quantiser


@pytest.fixture(scope="module")
def expected(vectors, quantiser):
    from gti_train.semantic_ids.quantiser import Fitted

    made = make_ids(
        [f"i{row}" for row in range(ROWS)], vectors, Fitted(quantiser, quantiser.encode(vectors)), unique="assign"
    )
    assert made.sids.made["moves"]["moved_prefixes"] > 0  # an overfull prefix is in play
    return made.sids.codes.numpy()


@pytest.fixture
def folder(vectors, tmp_path):
    order = np.random.default_rng(0).permutation(ROWS)
    for part, rows in enumerate(np.array_split(order, 4)):
        columns = {"item_id": [f"i{row}" for row in rows], "row": rows, "vector": vectors[rows].tolist()}
        write_table(pyarrow.table(columns), tmp_path / f"part-{part}.parquet")
    return tmp_path


def batches(folder):
    for file in shard_files(folder):
        table = read_table(file)
        yield {name: table[name].to_numpy() for name in table.column_names}


def test_shards_one_after_the_other_give_the_codes_of_one_machine(folder, quantiser, expected):
    coded = [encoded(batch, quantiser) for batch in batches(folder)]
    whole = {name: np.concatenate([batch[name] for batch in coded]) for name in coded[0]}
    keys = Counter(tuple(row[:-1]) for row in whole["codes"].tolist())
    overfull = {
        prefix: {name: whole[name][(whole["codes"][:, :-1] == prefix).all(axis=1)] for name in ("row", "latent")}
        for prefix, count in keys.items()
        if count > 8
    }
    moved = placed(whole, moved_prefixes(overfull, Counter(keys), quantiser))
    found = np.zeros_like(expected)
    for prefix in set(moved["prefix"]):
        mask = moved["prefix"] == prefix
        group = separated({name: column[mask] for name, column in moved.items()}, quantiser)
        found[group["row"]] = group["codes"]
    assert np.array_equal(found, expected)


def test_two_workers_give_the_codes_of_one_machine(folder, quantiser, expected, tmp_path):
    import ray

    try:
        done = cluster_codes(folder, quantiser, tmp_path / "codes", workers=2)
    finally:
        ray.shutdown()
    table = read_table(tmp_path / "codes")
    found = np.zeros_like(expected)
    found[table["row"].to_numpy()] = np.stack(table["codes"].to_numpy())
    assert np.array_equal(found, expected)
    assert dict(zip(table["item_id"].to_pylist(), table["row"].to_pylist(), strict=True)) == {
        f"i{row}": row for row in range(ROWS)
    }
    assert done.items == ROWS and done.moved_prefixes > 0 and done.batch_bytes < 2**20


def test_a_sample_is_drawn_evenly_from_all_shards(folder, vectors):
    found = sample(shard_files(folder), 40, seed=3)
    assert found.shape == (40, 4)
    known = {tuple(row) for row in vectors.tolist()}
    assert all(tuple(row) in known for row in found.tolist()) and len(torch.unique(found, dim=0)) == 40
    assert len(sample(shard_files(folder), 10**6)) == ROWS


def test_what_is_no_shard_is_refused(tmp_path):
    with pytest.raises(InputError, match="no Parquet shards"):
        cluster_codes(tmp_path, Quantiser("x", (torch.zeros(2, 2),)), tmp_path / "out")
    write_table(pyarrow.table({"item_id": ["a"], "row": [0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column vector"):
        shard_files(tmp_path)
