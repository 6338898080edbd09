"""All measures of one group of rows, and of random groups of text rows of the same size (the null)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gti_diag.measures import dimension, geometry, spectra
from gti_diag.measures.tiles import evenly, one_thread_each, workers

from .group_rows import GroupRows

NOT_DIRECT = (
    f"float64 rows of more than {spectra.DIRECT:,} numbers: their Gram matrix shows no singular value under 4e-8 of the largest, "
    "which is far above their rounding"
)
LISTED = 4096  # singular values kept in a report
VARIANCE = 0.95  # `components_95`: the components that carry this share
AXES = 16  # leading axes of a group, between which and text's principal angles are taken
MEDIAN_ROWS = 4095  # a median over more rows costs a selection in each column and changes nothing
NEIGHBOURHOOD_ROWS = 2048  # of a group, evenly chosen: a search costs the square of their number
NEIGHBOURS = 10  # of each row, searched once for all measures of neighbourhoods
NULL_SAMPLES = (4, 40)  # at least, at most
NULL_WORK = 3e10  # multiply-adds that all null spectra together may cost: a second on two cores


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
    "rankme": spectra.rankme,
    "participation_ratio": spectra.participation_ratio,
    "stable_rank": spectra.stable_rank,
    "condition_number": spectra.condition_number,
    "components_95": lambda s: spectra.components_for(s, VARIANCE),
    "leading_share": lambda s: spectra.explained_variance(s, 1),
    "leading_10_share": lambda s: spectra.explained_variance(s, min(10, len(s))),
}
NULL_MEASURES = (
    *(name + suffix for name in SHAPES for suffix in ("", "_centred")), "alpha_req", "isoscore",
    "dispersion", "median_dispersion", "mean_cosine", "mean_cosine_centred", "uniformity", "two_nn", "hubness",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What comparisons need of a group: mean row, centred spectrum, why the centred rows have no shape (where they have
    none; then no leading axes either), sum of directions, moments where they were kept, and how far each of some rows
    is from the nearest other."""

    mean: Tensor
    spectrum: Tensor
    floor: str | None
    axes: Tensor | None
    directions: geometry.DirectionSum | None
    moments: spectra.Moments | None
    nearest: Tensor | None


def shape(source: spectra.Moments | Tensor, *, floor_reason: str | None = None) -> Measured:
    """Spectra and what is read from them; centred numbers are undefined for the reason given, if one is."""
    found = Measured()
    for suffix, centred in (("", False), ("_centred", True)):
        s = spectra.singular_values(source, centred=centred)
        found.values[f"singular_values{suffix}"] = s
        reason = floor_reason if centred else None
        for name, measure in SHAPES.items():
            found.add(name + suffix, partial(_shape_of, reason, measure, s))
    found.add("isoscore", partial(_shape_of, floor_reason, dimension.isoscore, s, source_width(source)))
    fit = None
    try:
        fit = _shape_of(floor_reason, spectra.alpha_req, s)
    except ValueError as error:
        found.undefined["alpha_req"] = str(error)
    found.values["alpha_req"] = fit and fit.exponent
    found.values["alpha_req_fit"] = fit and {"first": fit.first, "last": fit.last, "r_squared": fit.r_squared}
    return found


def source_width(source: spectra.Moments | Tensor) -> int:
    return len(source.shift) if isinstance(source, spectra.Moments) else source.shape[1]


def neighbourhoods(rows: Tensor, *, floor_reason: str | None, near: dimension.Neighbours | None) -> Measured:
    """Measures of who is near whom, on rows of which none is zero, with the search made once."""
    found = Measured()
    found.add("uniformity", lambda: dimension.uniformity(rows))
    found.add("two_nn", lambda: _shape_of(floor_reason, dimension.two_nn, rows, near=near))
    found.add("hubness", lambda: _shape_of(floor_reason, dimension.hubness, rows, near=near))
    return found


def search(rows: Tensor) -> dimension.Neighbours | None:
    """The 10 nearest others of each row, and the one after them; None for a single row."""
    return dimension.nearest_others(rows, k=min(NEIGHBOURS + 1, len(rows) - 1)) if len(rows) > 1 else None


def _shape_of(reason: str | None, measure: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if reason is not None:
        raise ValueError(reason)
    return measure(*arguments, **options)


def floor_reason(dispersion: float, floor: float, dtype: str, *, count: int) -> str | None:
    """Why centred shapes mean nothing when the rows differ by no more than the storage dtype's rounding."""
    if count == 1:
        return "a single row has no dispersion, so no centred shape"
    if dispersion == 0:
        return "all rows are identical: there is no dispersion, so no centred shape"
    if dispersion <= floor:
        return f"the spread {dispersion:.2g} is below the precision floor {floor:.2g} of {dtype}: its shape is rounding"
    return None


def typical_reason(median_dispersion: float | None, floor: float, dtype: str) -> str | None:
    """Why directions and neighbours mean nothing when only a few rows stand out and the typical row is rounding."""
    if median_dispersion is not None and median_dispersion <= floor:
        return (
            f"the typical row's spread {median_dispersion:.2g} is below the precision floor {floor:.2g} of {dtype}: "
            "who is near whom is rounding"
        )
    return None


def norm_summary(norms: Tensor) -> dict:
    """Mean, standard deviation (population), extremes and a 40-bin histogram of row norms."""
    import numpy as np

    low, high = float(norms.min()), float(norms.max())
    if high - low < 1e-6 * high:  # forty bins would be narrower than the norms' own rounding
        low, high = low * (1 - 1e-6), high * (1 + 1e-6)
    counts, edges = np.histogram(norms.cpu().numpy(), bins=40, range=(low, high))
    return {
        "mean": float(norms.mean()),
        "std": float(norms.std(correction=0)),
        "min": float(norms.min()),
        "max": float(norms.max()),
        "histogram": {"edges": edges, "counts": counts},
    }


def group_measures(held: GroupRows, *, moments: bool = False) -> tuple[dict, Summary]:
    """All measures of one group: exact ones stream over all its rows, costly ones use the rows held.

    With `moments` the Gram matrix of the rows is part of the summary; it is d × d, so only one group should ask.
    """
    matrix, rows, found = held.matrix, held.rows, Measured()
    norms = geometry.norms(held.stream())
    zero = int((norms == 0).sum())
    nonzero = rows[(rows != 0).any(1)] if zero else rows
    wide = not held.sampled and len(rows) < rows.shape[1]  # the n × n Gram matrix is the smaller one
    gram = spectra.moments(held.stream()) if moments or not wide else None
    mean = geometry.centroid(rows) if gram is None else gram.mean
    dispersion = geometry.dispersion(rows) if gram is None else (gram.scatter_trace(centred=True) / held.count) ** 0.5
    found.values["dispersion"] = dispersion
    found.add("median_dispersion", lambda: geometry.median_dispersion(_some(rows, MEDIAN_ROWS)))
    floor = geometry.precision_floor(mean[None], matrix.dtype)
    reason = floor_reason(dispersion, floor, matrix.kind, count=held.count)
    typical = reason or typical_reason(found.values["median_dispersion"], floor, matrix.kind)
    direct = not held.sampled and spectra.is_direct(rows)
    shapes = shape(rows if gram is None or wide or direct else gram, floor_reason=reason)
    coarse = None if direct or matrix.dtype != torch.float64 else NOT_DIRECT
    for suffix in ("", "_centred"):
        s = shapes.values[f"singular_values{suffix}"]
        size = {"shape": (held.count, matrix.shape[1]), "dtype": matrix.dtype}
        shapes.add(f"numerical_rank{suffix}", partial(_shape_of, coarse, spectra.numerical_rank, s, **size))
    spectrum = shapes.values["singular_values_centred"]
    axes = None if reason or moments else _leading_axes(rows, gram)
    directions = _directions(held, zero, None)
    some = _some(nonzero, NEIGHBOURHOOD_ROWS)
    near = search(some)
    nearest = None if near is None else near.distance[:, 0]
    summary = Summary(mean, spectrum, reason, axes, directions, gram if moments else None, nearest)
    del gram
    found.add("mean_cosine", lambda: geometry.mean_cosine(_given(summary.directions)))
    middle = mean if not zero else geometry.centroid(nonzero) if len(nonzero) else mean
    found.add("mean_cosine_centred", lambda: _shape_of(
        typical, lambda: geometry.mean_cosine(_given(_directions(held, zero, middle)))))  # fmt: skip
    local = neighbourhoods(some, floor_reason=typical, near=near)
    local.add("near_duplicates", lambda: round(
        dimension.near_duplicates(nonzero, matrix.dtype) / len(rows) * held.count))  # fmt: skip
    values = {
        "count": held.count,
        "sampled": len(rows) if held.sampled else None,
        "unique_rows": geometry.unique_rows(held.stream()),
        "zero_rows": zero,
        **shapes.values,
        **found.values,
        "precision_floor": floor,
        **local.values,
        "neighbourhood_rows": len(some),
        "norm": norm_summary(norms),
        "undefined": shapes.undefined | found.undefined | local.undefined,
    }
    for key in ("singular_values", "singular_values_centred"):
        values[key] = values[key][:LISTED]
    return values, summary


def _leading_axes(rows: Tensor, gram: spectra.Moments | None) -> Tensor | None:
    """Fewer than `AXES` where the rows span no more."""
    k = min(AXES, len(rows) - 1, rows.shape[1])
    try:
        if gram is not None and len(gram.shift) <= spectra.LARGE:
            return spectra.principal_axes(gram, k)
        return spectra.leading_axes([rows], k)
    except ValueError:  # fewer directions than that
        return None


def _directions(held: GroupRows, zero: int, centre: Tensor | None) -> geometry.DirectionSum | None:
    """Of the rows that are not zero, about `centre`; None if all are."""
    if zero == held.count:
        return None
    tiles = (tile[(tile != 0).any(1)] if zero else tile for tile in held.stream())
    return geometry.direction_sum(tiles, centre=centre)


def _given(directions: geometry.DirectionSum | None) -> geometry.DirectionSum:
    if directions is None:
        raise ValueError("all rows are zero: they have no directions")
    return directions


def _some(rows: Tensor, most: int) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[evenly(len(rows), most).to(rows.device)]


def text_null(text: Tensor, size: int, *, generator: torch.Generator, progress=None) -> dict:
    """Each measure on many random text samples of `size` rows drawn without replacement: low, median and high.

    Low and high are the extremes of the samples: with m samples, a further text sample falls outside with chance
    2/(m + 1). No samples, and in `undefined` why, for a single row or where the text has fewer rows than that.
    """
    none = {"samples": 0, "size": size, "measures": {}, "singular_values": None}
    if size < 2:
        return {**none, "undefined": "a single new row has no shape to compare with text's"}
    if len(text) < size:
        return {**none, "undefined": f"the vocabulary has {len(text):,} rows, too few to draw samples of {size:,} from"}
    if progress is not None:
        progress("text null", 0.0)
    with one_thread_each(workers(text.device)) as pool:
        draws = _draws(len(text), size, text.shape[1], generator)
        running = pool.map(lambda picked: _null_sample(text[picked.to(text.device)]), draws)
        tests = []
        for test in running:
            tests.append(test)
            if progress is not None:
                progress("text null", len(tests) / len(draws))
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
        "undefined": None,
    }


def _draws(population: int, size: int, dim: int, generator: torch.Generator) -> list[Tensor]:
    least = min(size, dim)
    work = size * dim * least + 8 * least**3  # Gram matrix and eigenvalues
    count = min(NULL_SAMPLES[1], max(NULL_SAMPLES[0], int(NULL_WORK / work)))
    return [torch.randperm(population, generator=generator)[:size].clone() for _ in range(count)]  # not all of it


def _null_sample(rows: Tensor) -> dict:
    gram = spectra.moments(rows) if len(rows) >= rows.shape[1] else None
    found = shape(rows if gram is None else gram)
    centre = geometry.centroid(rows) if gram is None else gram.mean
    found.add("dispersion", lambda: geometry.dispersion(rows) if gram is None else (
        gram.scatter_trace(centred=True) / len(rows)) ** 0.5)  # fmt: skip
    found.add("median_dispersion", lambda: geometry.median_dispersion(_some(rows, MEDIAN_ROWS)))
    found.add("mean_cosine", lambda: geometry.mean_cosine(rows))
    found.add("mean_cosine_centred", lambda: geometry.mean_cosine(geometry.direction_sum(rows, centre=centre)))
    some = _some(rows, NEIGHBOURHOOD_ROWS)
    return {**found.values, **neighbourhoods(some, floor_reason=None, near=search(some)).values}
