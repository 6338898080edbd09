"""The layouts that catalogues come in: one module each, listed here from the most particular to the most general.

A layout says by which files it is known and hands its records to a `Collector`; it checks nothing that another layout
must check too.
"""

from ..sources import Layout
from . import amazon, json_lines, lcrec, minionerec, movielens, tables, vibrent

LAYOUTS: tuple[Layout, ...] = (
    minionerec.LAYOUT,
    lcrec.LAYOUT,
    movielens.LAYOUT,
    vibrent.LAYOUT,
    amazon.LAYOUT,
    json_lines.LAYOUT,
    tables.LAYOUT,
)
