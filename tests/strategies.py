"""Hypothesis strategies: spectra, and matrices of rows with and without structure."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("busy", deadline=None)  # time on a busy machine says nothing about an example
settings.load_profile("busy")


@st.composite
def spectra(draw, *, longest: int = 24):
    """Descending float64 singular values over six orders of magnitude, the first positive, the last ones maybe zero."""
    exponents = draw(st.lists(st.floats(-6, 0), min_size=1, max_size=longest))
    values = sorted((10**exponent for exponent in exponents), reverse=True)
    return torch.tensor(values + [0.0] * draw(st.integers(0, 3)), dtype=torch.float64)


@st.composite
def rows(draw, *, least: int = 2, most: int = 40, widest: int = 12):
    """Gaussian rows with a mean and unequal column scales, float64, taller or wider than square."""
    count, dim = draw(st.integers(least, most)), draw(st.integers(2, widest))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scales = 10 ** (draw(st.floats(0, 2)) * -torch.rand(dim, generator=generator, dtype=torch.float64))
    mean = draw(st.floats(0, 3)) * torch.randn(dim, generator=generator, dtype=torch.float64)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) * scales + mean


def rotation(dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


def with_spectrum(s: torch.Tensor, count: int, *, seed: int = 0) -> torch.Tensor:
    """`count` rows whose singular values are s."""
    return rotation(max(count, len(s)), seed)[:count, : len(s)] @ torch.diag(s) @ rotation(len(s), seed + 1)
