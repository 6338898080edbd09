"""The quality report of semantic IDs as people read it: figures, Markdown, HTML, terminal. Reads the document only.

The document is what `gti-train sids --report` writes (schema 1): levels, prefixes, collisions, capacity, verdicts.
"""

from .write import write

__all__ = ["write"]
