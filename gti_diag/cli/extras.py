"""Packages that only some commands need: which extra of the distribution brings each."""

EXTRAS = {
    "accelerate": "train", "google.protobuf": "train", "gguf": "train", "sentencepiece": "train", "sklearn": "train",
    "pyarrow": "recommend", "sentence_transformers": "recommend",
    "plotly": "report",
    "aiohttp": "remote", "fsspec": "remote", "gcsfs": "remote", "s3fs": "remote",
}  # fmt: skip


def missing(error: ModuleNotFoundError) -> str | None:
    """What to install where a package that an extra brings is not there; None for any other module."""
    name = error.name or ""
    extra = next(
        (extra for package, extra in EXTRAS.items() if name == package or name.startswith(f"{package}.")), None
    )
    return extra and f"this needs {name.split('.')[0]}, which is not installed: pip install 'gti-diag[{extra}]'"
