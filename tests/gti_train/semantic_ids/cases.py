"""Vectors with a known tree in them."""

import torch


def nested(seed=0):
    """48 vectors: 4 far groups of 3 near groups of 4 points each."""
    generator = torch.Generator().manual_seed(seed)
    far = torch.randn(4, 1, 1, 8, generator=generator) * 100
    near = torch.randn(4, 3, 1, 8, generator=generator) * 10
    points = torch.randn(4, 3, 4, 8, generator=generator) * 0.1
    return (far + near + points).reshape(48, 8).double()


def spread(rows=120, dim=12, seed=0):
    """Rows without clusters: normal, with a falling spectrum."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64) / torch.arange(1, dim + 1).sqrt()
