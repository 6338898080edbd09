"""gti_diag: what happened to the embedding rows of a language-model checkpoint.

The calls of the Python API are loaded on first use, so that `import gti_diag` costs nothing:

>>> import gti_diag
>>> analysis = gti_diag.diagnose(gti_diag.open_checkpoint("ckpt/"))      # doctest: +SKIP
>>> analysis["matrices"]["input"]["verdict"]["label"]                    # doctest: +SKIP
'collapsed'
"""

from importlib import import_module, metadata

from .errors import InputError

_HOME = {
    "open_checkpoint": ".checkpoint",
    "diagnose": ".analysis.diagnosis",
    "compare": ".analysis.diagnosis",
    "check": ".gate.findings",
    "scan": ".analysis.scan",
    "EmbeddingGeometryCallback": ".training.callback",
}

__all__ = ["EmbeddingGeometryCallback", "InputError", "check", "compare", "diagnose", "open_checkpoint", "scan"]
__version__ = metadata.version("gti-diag")


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'gti_diag' has no attribute {name!r}")
