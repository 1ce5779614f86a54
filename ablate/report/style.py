"""How every figure looks: a venue's width and font sizes, one colour and marker a level.

Widths and font sizes come from tueplots, by venue (NeurIPS unless said otherwise); for a venue with
two columns they are those of a figure over both. The fonts are those that ship with matplotlib, so
that the same figure comes out on another machine. Colours are seaborn's colour-blind palette; every
series also has its own marker and line, so that a grey print can be read.
"""

from __future__ import annotations

import inspect
import io
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends import backend_pdf
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, NullFormatter

from ablate import registry, words
from ablate.errors import unknown

DEFAULT = "neurips2024"
_COLUMNS: dict[str, dict[str, Any]] = {  # venue -> how tueplots is asked for its whole text width
    **{name: {} for name in (DEFAULT, "iclr2024", "colm2026", "tmlr2023", "jmlr2001")},
    **{name: {"column": "full"} for name in ("icml2024", "aistats2025", "aaai2024", "uai2023")},
}
VENUES = tuple(_COLUMNS)
SMALL = 7.0  # points: the smallest letters of a figure
_COLOURS = (  # seaborn.color_palette("colorblind"), by value so that a figure needs no state
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)
_Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of one series."""

    colour: str
    marker: str
    line: Any


_LOOKS = (
    Look(_COLOURS[0], "o", "-"),
    Look(_COLOURS[2], "^", (0, (4, 1))),
    Look(_COLOURS[1], "s", (0, (4, 1, 1, 1))),
    Look(_COLOURS[3], "D", (0, (1, 1))),
    Look(_COLOURS[4], "v", (0, (6, 2))),
    Look(_COLOURS[5], "P", (0, (5, 1, 1, 1, 1, 1))),
    Look(_COLOURS[9], "<", (0, (3, 1))),
    Look(_COLOURS[7], "X", (0, (2, 2))),
    Look("#5b2a86", ">", (0, (1, 2))),
    Look("#1a1a1a", "h", (0, (8, 2))),
)
_LONG = re.compile(rb"-?\d+\.\d{4,}")
YARDSTICK = Look("#000000", "", (0, (1, 1)))
VERDICTS = {
    "supported": _COLOURS[2],
    "equivalent": _COLOURS[0],
    "refuted": _COLOURS[3],
    "inconclusive": _COLOURS[7],
}
UNDECIDED = _COLOURS[7]  # of any other verdict


def looks(factor: str, levels: Iterable[Any]) -> dict[Any, Look]:
    """The look of each level of a factor, in the order given.

    A part that is registered with a place has the same look in every figure; other levels take the looks that
    are left. After ten they repeat.
    """
    present = list(dict.fromkeys(levels))
    known = [
        name
        for name in words.levels(factor, registry.names(factor))
        if words.place(factor, name)[0] < words.LAST
    ]
    out = {level: _LOOKS[known.index(level) % len(_LOOKS)] for level in present if level in known}
    left = [look for look in _LOOKS if look not in out.values()] or list(_LOOKS)
    for index, level in enumerate(level for level in present if level not in known):
        out[level] = left[index % len(left)]
    return {level: out[level] for level in present}


def plain() -> Look:
    """The look of a single series."""
    return _LOOKS[0]


def sizes(venue: str) -> tuple[float, float]:
    """(text width in inches, font size of the text in points) of a venue of `VENUES`.

    Raises UserError for another name.
    """
    from tueplots import bundles

    if venue not in _COLUMNS:
        raise unknown("--venue", venue, VENUES)
    bundle = getattr(bundles, venue)
    options = dict(_COLUMNS[venue])
    if "usetex" in inspect.signature(bundle).parameters:
        options["usetex"] = False
    found = bundle(**options)
    return float(found["figure.figsize"][0]), float(found["font.size"])


@contextmanager
def paper_style(venue: str = DEFAULT) -> Iterator[None]:
    """The settings under which every figure is drawn and saved, at the width of the venue."""
    from tueplots import axes

    width, size = sizes(venue)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(axes.lines(base_width=0.5))
        matplotlib.rcParams.update(
            {
                "figure.figsize": (width, width / 1.618),
                "font.size": size,
                "font.family": "STIXGeneral",
                "text.parse_math": False,  # a level may hold dollars, and no figure of ours holds formulas
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.axisbelow": True,
                "axes.titlelocation": "left",
                "axes.titlepad": 4,
                "axes.titlesize": size - 0.5,
                "axes.labelsize": size - 1,
                "xtick.labelsize": size - 2,
                "ytick.labelsize": size - 2,
                "legend.fontsize": size - 1.5,
                "lines.linewidth": 1.0,
                "lines.markersize": 3.2,
                "legend.frameon": False,
                "legend.handlelength": 2.2,
                "legend.columnspacing": 1.0,
                "legend.handletextpad": 0.5,
                "figure.constrained_layout.use": True,
                "figure.dpi": 200,  # the layout is measured at the resolution of the PNG
                "pdf.fonttype": 42,
                "ps.fonttype": 42,
                "svg.hashsalt": "ablate",
                "svg.fonttype": "path",
                "savefig.bbox": None,
            }
        )
        yield


def width() -> float:
    """Inches that a figure may be wide; to be asked for under `paper_style`."""
    return float(matplotlib.rcParams["figure.figsize"][0])


def new_figure(height: float) -> Figure:
    """An empty figure of `height` inches over the whole text width, without pyplot's global state."""
    return Figure(figsize=(width(), height), layout="constrained")


def shade(axes: Any, low: float, high: float, **options: Any) -> None:
    """The band of effects too small to matter, behind everything else."""
    axes.axvspan(low, high, color="#000000", alpha=0.09, linewidth=0, zorder=0, **options)


def files(figure: Figure) -> dict[str, bytes]:
    """The figure as pdf (vector, embedded TrueType), png (200 dots per inch) and svg, undated.

    The layout is found once, so that all three are the same picture. Its solver goes through sets
    in the order of memory addresses, so the last digits of what it finds differ from run to run, and
    those of all that is computed from processor to processor: they are cut off.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(_power)
                axis.set_minor_formatter(NullFormatter())
    engine = figure.get_layout_engine()
    for _ in range(2):  # the second pass knows how wide the first one's labels came out
        if engine is not None and figure.axes:
            engine.execute(figure)
    undated = {"CreationDate": None, "ModDate": None, "Creator": "ablate"}
    # Without an engine of any kind, as otherwise matplotlib draws a figure once more before it saves it.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        for axes in figure.axes:
            left, bottom, width, height = (round(edge, 6) for edge in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))
        for label in figure.texts:
            x, y = label.get_position()
            label.set_position((round(float(x), 6), round(float(y), 6)))
        with _thousandths():
            pdf = _save(figure, "pdf", undated)
        return {
            "pdf": pdf,
            "png": _save(figure, "png", {"Software": None}, dpi=200),
            "svg": _save(figure, "svg", {"Date": None, "Creator": "ablate"}),
        }


def _power(value: float, _: float) -> str:
    """A number on a logarithmic axis in plain text: matplotlib writes a formula, and no text here is one."""
    exponent = math.log10(value) if value > 0 else math.nan
    if -3 <= exponent <= 4:
        return f"{value:,g}"
    whole = math.isfinite(exponent) and math.isclose(exponent, round(exponent), abs_tol=1e-9)
    return f"1e{round(exponent)}" if whole else ""


@contextmanager
def _thousandths() -> Iterator[None]:
    """Write the coordinates of a PDF with three decimals of a point (lengths in matrices with four), where
    matplotlib writes six and ten."""
    number, path = backend_pdf.pdfRepr, backend_pdf.PdfFile.pathOperations

    def short(value: Any) -> Any:
        return number(round(float(value), 4) if isinstance(value, float) else value)

    def shorter(*arguments: Any, **options: Any) -> list[Any]:
        return [
            backend_pdf.Verbatim(_LONG.sub(_short, backend_pdf.pdfRepr(one)))
            for one in path(*arguments, **options)
        ]

    backend_pdf.pdfRepr = short
    setattr(backend_pdf.PdfFile, "pathOperations", staticmethod(shorter))  # noqa: B010
    try:
        yield
    finally:
        backend_pdf.pdfRepr = number
        setattr(backend_pdf.PdfFile, "pathOperations", staticmethod(path))  # noqa: B010


def _short(found: re.Match[bytes]) -> bytes:
    """A number with three decimals at most, as matplotlib writes those that have no more: without zeros behind."""
    shown = (b"%.3f" % float(found[0])).rstrip(b"0").rstrip(b".")
    return b"0" if shown == b"-0" else shown


def _save(figure: Figure, kind: str, metadata: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()
