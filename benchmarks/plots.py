"""The figures as pictures, from the documents of a run: SVG for pages, PNG for looking at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contestants import CONTESTANTS, OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

INK: Final = "#1f2933"
FAINT: Final = "#7b8794"
COLOURS: Final = {"ours": "#0b6bcb", "peer": "#b8c2cc", "plain": "#dde3e9"}
RATE: Final = "decisions_per_second"
WIDTH: Final = 8.0
"""Inches; at 100 dots each as wide as a page of GitHub's shows it."""

POINTS: Final = 72  # an inch
_APART: Final = 15  # pixels between two labels

STYLE: Final[Any] = {  # matplotlib's own type of it lists every setting there is
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "svg.hashsalt": "ratelimit",  # so that the same figures are the same file
    "svg.fonttype": "none",
}


def draw(documents: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw what these documents hold; return the names of the pictures."""
    drawn = []
    with mpl.rc_context(STYLE):
        if "library" in documents:
            cells = [cell for cell in documents["library"]["cells"] if _wanted(cell)]
            for name, figure, scale, title in BARS:
                if cells:
                    _save(_bars(cells, figure, scale, title), folder, name)
                    drawn.append(name)
        if "growth" in documents:
            _save(_growth(documents["growth"]["redis_us"]), folder, "growth")
            drawn.append("growth")
    return drawn


BARS: Final = (
    ("decisions", RATE, 1e-3, "Thousand decisions a second"),
    ("redis-cpu", "redis_us", 1.0, "Microseconds inside Redis a decision"),
)


def _wanted(cell: Mapping[str, Any]) -> bool:
    """256 tasks over many keys: how a busy service asks."""
    return (cell["mode"], cell["concurrency"]) == ("asyncio", 256) and cell["keys"] > 1


def _save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=100)


def _bars(cells: Sequence[Mapping[str, Any]], figure: str, scale: float, title: str) -> Figure:
    """Draw a panel for each cell: a bar for each contestant, a whisker for its rounds."""
    counts = [len(cell["contestants"]) for cell in cells]
    picture = Figure(figsize=(WIDTH, 0.3 * sum(counts) + 0.75 * len(cells)), layout="constrained")
    panels = picture.subplots(len(cells), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for panel, cell in zip(panels, cells, strict=True):
        _panel(panel, cell["contestants"], figure, scale)
        panel.set_title(f"{title}: {cell['label']}")
    most = max(scale * found[figure]["max"] for cell in cells for found in cell["contestants"].values())
    panels[-1].set_xlim(0, 1.1 * most)
    return picture


def _panel(panel: Axes, contestants: Mapping[str, Any], figure: str, scale: float) -> None:
    # The best is at the top: most decisions, or least time.
    best_last = 1 if figure == RATE else -1
    names = sorted(contestants, key=lambda name: best_last * contestants[name][figure]["median"])
    found = [contestants[name][figure] for name in names]
    middles = [scale * spread["median"] for spread in found]
    lows = [scale * (spread["median"] - spread["min"]) for spread in found]
    highs = [scale * (spread["max"] - spread["median"]) for spread in found]
    colours = [COLOURS[CONTESTANTS[name].kind] for name in names]
    panel.barh(names, middles, color=colours, height=0.72)
    panel.errorbar(middles, names, xerr=[lows, highs], fmt="none", ecolor=FAINT, elinewidth=1, capsize=2)
    for name, middle, high in zip(names, middles, highs, strict=True):
        panel.annotate(
            f"{middle:,.1f}",
            (middle + high, name),
            (5, 0),
            textcoords="offset points",
            va="center",
            weight="bold" if name == OURS else "normal",
        )
    for label in panel.get_yticklabels():
        label.set_color(INK)
        label.set_fontweight("bold" if label.get_text() == OURS else "normal")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _growth(found: Mapping[str, Any]) -> Figure:
    """Draw how the cost of a decision grows: flat is what is wanted."""
    picture = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    panels = picture.subplots(2, 2)
    largest = max(int(burst) for burst in found["bursts"][OURS])
    half = {
        name: _at_level(bursts, "half used")
        for name, bursts in found["bursts"].items()
        if str(largest) in bursts  # one that cannot go so far would end in the middle of the others
    }
    panels[1][1].set_yscale("log")  # a row for each token leaves no room for the others otherwise
    panels[1][1].yaxis.set_major_formatter(lambda value, _: _short(value))
    for panel, sweep, title in (
        (panels[0][0], found["keys"], "Keys in use"),
        (panels[0][1], half, "Burst, half of it used"),
        (panels[1][0], found["limits"], "Limits of a check"),
        (panels[1][1], found["costs"], "Tokens that a check takes"),
    ):
        panel.set_title(title)
        _lines(panel, {name: points for name, points in sweep.items() if points})
    picture.supylabel("microseconds inside Redis a decision", fontsize=10, color=INK)
    everyone = [name.partition(" ") for sweep in found.values() for name in sweep if name != OURS]
    variants = dict.fromkeys(f"{name}: {variant}" for name, _, variant in everyone)
    picture.supxlabel(" · ".join(variants), fontsize=8, color=FAINT)
    picture.draw_without_rendering()  # only then is it known which labels would meet
    for panel in panels.flat:
        _label(panel, picture.dpi)
    return picture


def _at_level(bursts: Mapping[str, Any], level: str) -> dict[str, Any]:
    return {burst: levels[level] for burst, levels in bursts.items() if level in levels}


def _lines(panel: Axes, sweep: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a line for each contestant; steps of a sweep are as far apart as they are many times more."""
    steps = sorted({int(point) for points in sweep.values() for point in points})
    for name, points in sweep.items():
        at = [steps.index(int(point)) for point in points]
        middles, lows, highs = (
            [spread[figure] for spread in points.values()] for figure in ("median", "min", "max")
        )
        colour = COLOURS["ours"] if name == OURS else FAINT
        panel.plot(at, middles, color=colour, lw=2 if name == OURS else 1.2, marker="o", ms=3, label=name)
        panel.fill_between(at, lows, highs, color=colour, alpha=0.12, lw=0)
    every = -(-len(steps) // 5)
    panel.set_xticks(range(0, len(steps), every), [_short(step) for step in steps[::every]])
    panel.set_xlim(-0.2, (len(steps) - 1) * 1.5)  # with room for the names
    if panel.get_yscale() == "linear":
        panel.set_ylim(bottom=0)


def _label(panel: Axes, dpi: float) -> None:
    """Write each contestant's name at the end of its line, apart from each other."""
    ends = {line: _end(line) for line in panel.get_lines()}
    heights = {line: float(panel.transData.transform(end)[1]) for line, end in ends.items()}
    last = float("-inf")
    for line, y in sorted(heights.items(), key=lambda height: height[1]):
        last = max(y, last + _APART)
        name = str(line.get_label())
        panel.annotate(
            name.partition(" ")[0],
            ends[line],
            (6, (last - y) * POINTS / dpi),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            fontsize=9,
            weight="bold" if name == OURS else "normal",
            annotation_clip=False,
        ).set_in_layout(False)


def _end(line: Any) -> tuple[float, float]:  # noqa: ANN401 - matplotlib's types lose what a line holds
    return float(line.get_xdata()[-1]), float(line.get_ydata()[-1])


def _short(value: float) -> str:
    """Write 1000 as 1k and a million as 1M."""
    for unit, size in (("bn", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:,.0f}{unit}"
    return f"{value:g}"
