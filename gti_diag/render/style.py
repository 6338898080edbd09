"""How figures look: three dictionaries. `paper` fits a two-column article, `screen` and `dark` a report."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

Look = dict[str, Any]

# Okabe & Ito's colours (distinct under the three common colour blindnesses), darkest useful ones first.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#000000")
ON_DARK = ("#56B4E9", "#E69F00", "#2FC79C", "#E59BC4", "#F0E442", "#FF8A5B", "#B5B5FF", "#FFFFFF")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "p")  # one more than colours: the ninth line is not the first

_SHARED = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "stix",
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "gti-diag",  # element ids otherwise change from run to run
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType, which conferences ask for
    "path.simplify": True,
    "axes.unicode_minus": True,
}


def _sizes(base: float) -> dict[str, float]:
    small = base - 1
    return {
        "font.size": base,
        "axes.titlesize": base,
        "axes.labelsize": base,
        "legend.fontsize": small,
        "xtick.labelsize": small,
        "ytick.labelsize": small,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
    }


def _colours(ink: str, paper: str, line: str) -> dict[str, str]:
    return {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": line,
        "axes.titlecolor": ink,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "legend.labelcolor": ink,
    }


STYLES: dict[str, Look] = {
    "paper": {
        "rc": {
            **_SHARED,
            **_sizes(8.0),
            **_colours("#111111", "#FFFFFF", "#444444"),
            "font.family": ["STIXGeneral", "DejaVu Sans"],
            "savefig.dpi": 300,
        },
        "column": 3.35,
        "page": 6.9,
        "series": OKABE_ITO,
        "muted": "#9A9A9A",
        "band": "#D9D9D9",
        "ink": "#111111",
        "diverging": "RdBu_r",
        "token": 5.0,
    },
    "screen": {
        "rc": {
            **_SHARED,
            **_sizes(10.0),
            **_colours("#1B1F24", "#FFFFFF", "#57606A"),
            "font.family": ["DejaVu Sans"],
            "mathtext.fontset": "dejavusans",
            "savefig.dpi": 144,
        },
        "column": 6.4,
        "page": 11.0,
        "series": OKABE_ITO,
        "muted": "#9AA3AD",
        "band": "#DDE1E6",
        "ink": "#1B1F24",
        "diverging": "RdBu_r",
        "token": 7.0,
    },
    "dark": {
        "rc": {
            **_SHARED,
            **_sizes(10.0),
            **_colours("#E6EDF3", "#0D1117", "#8B949E"),
            "font.family": ["DejaVu Sans"],
            "mathtext.fontset": "dejavusans",
            "savefig.dpi": 144,
        },
        "column": 6.4,
        "page": 11.0,
        "series": ON_DARK,
        "muted": "#7D8590",
        "band": "#30363D",
        "ink": "#E6EDF3",
        "diverging": "icefire",
        "token": 7.0,
    },
}

# What makes the files reproducible byte for byte: no dates, no version strings.
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}


@contextlib.contextmanager
def using(style: str) -> Iterator[Look]:
    """Draw inside: matplotlib's settings are this style's, and are put back afterwards.

    Raises:
        ValueError: no such style.
    """
    if style not in STYLES:
        raise ValueError(f"no figure style {style!r}: choose one of {', '.join(STYLES)}")
    look = STYLES[style]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(look["rc"])
        yield look


def colour_map(name: str) -> Colormap:
    """A colour map by name; seaborn, which takes a second to load and registers `icefire`, only for a name of its own."""
    if name not in mpl.colormaps:
        import seaborn  # noqa: F401
    return mpl.colormaps[name]


def colour(look: Look, place: int) -> str:
    """The colour of the checkpoint or level in this place."""
    return look["series"][place % len(look["series"])]


def canvas(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure without pyplot's global state, and its axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(**subplots)


@functools.cache
def _covered() -> frozenset[int]:
    """The characters that the bundled DejaVu Sans, every style's last resort, can draw."""
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def printable(text: str) -> str:
    """`text` for a matplotlib label: without a glyph as `U+6C34`, dollars not read as mathematics."""
    shown = "".join(c if ord(c) in _covered() else f"U+{ord(c):04X}" for c in text)
    return shown.replace("$", r"\$")
