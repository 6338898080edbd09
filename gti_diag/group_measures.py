"""All measures of one group of rows, and of random groups of text rows of the same size (the null)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import dimension, geometry, spectra
from .group_rows import GroupRows

LISTED = 4096  # singular values kept in a report
MEDIAN_ROWS = 16_384  # a median over more rows costs a sort of each column and changes nothing
NEIGHBOURHOOD_ROWS = 4096
NULL_SAMPLES = (6, 40)  # at least, at most
NULL_WORK = 2e11  # multiply-adds that all null spectra together may cost: some seconds on two cores


@dataclass
class Measured:
    """Values by name; a value that does not exist is None, and `undefined` says why."""

    values: dict = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, compute: Callable[[], float | tuple[float, ...]]) -> None:
        """Evaluate; a ValueError of the core is the reason why the number does not exist."""
        try:
            value = compute()
            if any(not math.isfinite(number) for number in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{name} came out as {value}: some of its samples are undefined")
            self.values[name] = value
        except ValueError as error:
            self.values[name] = None
            self.undefined[name] = str(error)


# Shape of a spectrum σ: each is reported for the rows as they are, and again for the centred rows.
SHAPES: dict[str, Callable[[Tensor], float]] = {
    "effective_rank": spectra.effective_rank,
    "energy_effective_rank": spectra.energy_effective_rank,
    "participation_ratio": spectra.participation_ratio,
    "stable_rank": spectra.stable_rank,
}
NULL_MEASURES = (
    "effective_rank", "effective_rank_centred", "participation_ratio", "participation_ratio_centred",
    "stable_rank", "mean_cosine", "mean_cosine_centred", "dispersion",
)  # fmt: skip


def spread(rows: Tensor, moments: spectra.Moments) -> Measured:
    """Dispersion and mean cosines: the measures of spread that need no reference group, at two passes over the rows."""
    found = Measured()
    scatter = float(moments.scatter(centred=True).diagonal().sum())
    found.add("dispersion", lambda: (max(scatter, 0.0) / moments.count) ** 0.5)
    found.add("mean_cosine", lambda: geometry.mean_cosine(rows))
    found.add("mean_cosine_centred", lambda: geometry.mean_cosine(rows, centred=True))
    return found


def shape(moments_or_rows: spectra.Moments | Tensor, *, floor_reason: str | None = None) -> Measured:
    """Spectra and the ranks read from them; centred ones are undefined for the reason given, if one is."""
    found = Measured()
    for suffix, centred in (("", False), ("_centred", True)):
        s = spectra.singular_values(moments_or_rows, centred=centred)
        found.values[f"singular_values{suffix}"] = s
        for name, measure in SHAPES.items():
            if centred and floor_reason:
                found.values[name + suffix], found.undefined[name + suffix] = None, floor_reason
            else:
                found.add(name + suffix, partial(measure, s))
    return found


def neighbourhoods(rows: Tensor, dtype: torch.dtype, *, floor_reason: str | None) -> Measured:
    """Measures of who is near whom, on at most 4,096 evenly chosen rows: they cost the square of their number."""
    found = Measured()
    some = _some(rows, NEIGHBOURHOOD_ROWS)
    found.add("near_duplicates", lambda: round(dimension.near_duplicates(some, dtype) / len(some) * len(rows)))
    found.add("uniformity", lambda: dimension.uniformity(some))
    found.add("two_nn", lambda: _shape_of(floor_reason, dimension.two_nn, some))
    found.add("hubness", lambda: _shape_of(floor_reason, dimension.hubness, some))
    return found


def _shape_of(reason: str | None, measure: Callable[..., float], *arguments: Any) -> float:
    if reason is not None:
        raise ValueError(reason)
    return measure(*arguments)


def floor_reason(dispersion: float, floor: float, dtype: str) -> str | None:
    """Why centred shapes mean nothing when the rows differ by no more than the storage dtype's rounding."""
    if dispersion == 0:
        return "all rows are identical: there is no dispersion, so no centred shape"
    if dispersion <= floor:
        return f"the spread {dispersion:.2g} is below the precision floor {floor:.2g} of {dtype}: its shape is rounding"
    return None


def norm_summary(norms: Tensor) -> dict:
    """Mean, standard deviation (population), extremes and a 40-bin histogram of row norms."""
    import numpy as np

    counts, edges = np.histogram(norms.cpu().numpy(), bins=40)
    return {
        "mean": float(norms.mean()),
        "std": float(norms.std(correction=0)),
        "min": float(norms.min()),
        "max": float(norms.max()),
        "histogram": {"edges": edges, "counts": counts},
    }


def group_measures(held: GroupRows) -> tuple[dict, spectra.Moments]:
    """All measures of one group: exact ones stream over all its rows, costly ones use the rows held."""
    matrix, rows = held.matrix, held.rows
    moments = spectra.moments(held.stream())
    norms = geometry.norms(held.stream())
    zero = int((norms == 0).sum())
    nonzero = rows[(rows != 0).any(1)] if zero else rows
    found = spread(nonzero if len(nonzero) else rows, moments)
    found.add("median_dispersion", lambda: geometry.median_dispersion(_some(rows, MEDIAN_ROWS)))
    floor = geometry.precision_floor(rows, matrix.dtype)
    reason = floor_reason(found.values["dispersion"] or 0.0, floor, dtype_name(matrix.dtype))
    wide = len(rows) < rows.shape[1] and not held.sampled
    shapes = shape(rows if wide else moments, floor_reason=reason)
    s = shapes.values["singular_values"]
    local = neighbourhoods(nonzero, matrix.dtype, floor_reason=reason)
    local.add("isoscore", lambda: _shape_of(
        reason, dimension.isoscore, shapes.values["singular_values_centred"], rows.shape[1]))  # fmt: skip
    values = {
        "count": held.count,
        "sampled": len(rows) if held.sampled else None,
        "unique_rows": geometry.unique_rows(held.stream()),
        "zero_rows": zero,
        **shapes.values,
        "numerical_rank": spectra.numerical_rank(s, shape=(held.count, matrix.shape[1]), dtype=matrix.dtype),
        **found.values,
        "precision_floor": floor,
        **local.values,
        "neighbourhood_rows": min(len(nonzero), NEIGHBOURHOOD_ROWS),
        "norm": norm_summary(norms),
        "undefined": shapes.undefined | found.undefined | local.undefined,
    }
    for key in ("singular_values", "singular_values_centred"):
        values[key] = values[key][:LISTED]
    return values, moments


def _some(rows: Tensor, most: int) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).round().long().to(rows.device)]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def text_null(text: Tensor, size: int, *, generator: torch.Generator, progress=None) -> dict | None:
    """Each measure on many random text samples of `size` rows drawn without replacement: low, median and high.

    Low and high are the extremes of the samples: with m samples, a further text sample falls outside with chance
    2/(m + 1). None when the text has too few rows to draw from.
    """
    if size < 2 or len(text) < 2 * size:
        return None
    tests = [_null_sample(rows) for rows in _samples(text, size, generator, progress)]
    measures = {}
    for name in NULL_MEASURES:
        values = sorted(test[name] for test in tests if test[name] is not None)
        if values:
            measures[name] = {"low": values[0], "median": values[len(values) // 2], "high": values[-1]}
    curves = torch.stack([test["singular_values"] for test in tests])
    return {
        "samples": len(tests),
        "size": size,
        "measures": measures,
        "singular_values": {"low": curves.min(0).values, "high": curves.max(0).values},
    }


def _samples(text: Tensor, size: int, generator: torch.Generator, progress) -> Iterator[Tensor]:
    dim = text.shape[1]
    least = min(size, dim)
    work = size * dim * least + 8 * least**3  # Gram matrix and eigenvalues
    count = min(NULL_SAMPLES[1], max(NULL_SAMPLES[0], int(NULL_WORK / work)))
    for index in range(count):
        if progress is not None:
            progress("text null", index / count)
        picked = torch.randperm(len(text), generator=generator)[:size]
        yield text[picked.to(text.device)]


def _null_sample(rows: Tensor) -> dict:
    moments = spectra.moments(rows)
    source = rows if len(rows) < rows.shape[1] else moments
    # The expectation of a mean cosine does not depend on how many rows it is taken over.
    return {**shape(source).values, **spread(_some(rows, NEIGHBOURHOOD_ROWS), moments).values}
