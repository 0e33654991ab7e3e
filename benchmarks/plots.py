"""The figures of a run as pictures: SVG for pages, PNG for looking at."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.figures import Found
from benchmarks.suite.growth import LEVELS
from benchmarks.suite.library import ONE_EACH, RATE, THREE_EACH

COLOURS: Final = {"ours": "#0b6bcb", "peer": "#b8c2cc", "plain": "#dde3e9"}
WIDTH: Final = 8.0  # inches; at 100 dots each as wide as a page of GitHub's shows it
BARS: Final = (
    ("decisions", RATE, 1e-3, "Thousand decisions a second"),
    ("redis-cpu", "redis_us", 1.0, "Microseconds inside Redis a decision"),
)
SHOWN: Final = (ONE_EACH.label, THREE_EACH.label)  # 256 tasks over many keys: a busy service
SWEEPS: Final = {
    "keys": "Keys in use",
    f"bursts, {LEVELS[1]}": "Burst, half of it used",
    "limits": "Limits of a check",
    "costs": "Tokens that a check takes",
}
_short: Final = EngFormatter(sep="")  # 1000 as 1k and a million as 1M


def draw(found: Found, folder: Path) -> list[str]:
    """Draw what a run measured; return the names of the pictures."""
    drawn: dict[str, Figure] = {}
    frame = found.frame()
    cells, sweeps = (frame.filter(pl.col("cell").is_in(labels)) for labels in (SHOWN, SWEEPS))
    with mpl.rc_context(fname=Path(__file__).with_name("plots.mplstyle")):
        if len(cells):
            for name, figure, scale, title in BARS:
                drawn[name] = _bars(cells.filter(figure=figure), scale, title)
        if len(sweeps):
            drawn["growth"] = _growth(sweeps)
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in drawn.items():
            picture.savefig(folder / f"{name}.svg", metadata={"Date": None})
            picture.savefig(folder / f"{name}.png", dpi=100)
    return list(drawn)


def _bars(found: pl.DataFrame, scale: float, title: str) -> Figure:
    """Draw a panel for each cell: a bar for each contestant, a whisker for its rounds."""
    found = found.with_columns(pl.col("median", "min", "max") * scale)
    cells = found.partition_by("cell", maintain_order=True)
    counts = [len(cell) for cell in cells]
    picture = Figure(figsize=(WIDTH, 0.3 * sum(counts) + 0.75 * len(cells)), layout="constrained")
    panels = picture.subplots(len(cells), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for panel, cell in zip(panels, cells, strict=True):
        # The best is at the top: most decisions, or least time.
        _draw_panel(panel, cell.sort("median", descending=cell["figure"][0] != RATE))
        panel.set_title(f"{title}: {cell['cell'][0]}")
    panels[-1].set_xlim(0, 1.1 * max(found["max"]))
    return picture


def _draw_panel(panel: Axes, cell: pl.DataFrame) -> None:
    names, middles = cell["contestant"].to_list(), cell["median"].to_list()
    whiskers = [cell["median"] - cell["min"], cell["max"] - cell["median"]]
    colours = [COLOURS[CONTESTANTS[name].kind] for name in names]
    error = {"ecolor": "#7b8794", "elinewidth": 1, "capsize": 2}
    panel.barh(names, middles, xerr=whiskers, color=colours, height=0.72, error_kw=error)
    for label, name, middle, high in zip(panel.get_yticklabels(), names, middles, cell["max"], strict=True):
        weight = "bold" if name == OURS else "normal"
        label.set(weight=weight, color=mpl.rcParams["text.color"])
        end = (high, name)
        panel.annotate(f"{middle:,.1f}", end, (5, 0), "data", "offset points", va="center", weight=weight)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _growth(found: pl.DataFrame) -> Figure:
    picture = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    panels = picture.subplots(2, 2)
    panels[1][1].set_yscale("log")  # a row for each token leaves no room for the others otherwise
    panels[1][1].yaxis.set_major_formatter(_short)
    for panel, (sweep, title) in zip(panels.flat, SWEEPS.items(), strict=True):
        panel.set_title(title)
        _draw_lines(panel, found.filter(cell=sweep).sort("at"))
    picture.supylabel("microseconds inside Redis a decision", fontsize=10)
    lines = {line.get_label(): line for panel in panels.flat for line in panel.get_lines()}
    picture.legend(handles=list(lines.values()), loc="outside lower center", ncols=len(lines))
    return picture


def _draw_lines(panel: Axes, sweep: pl.DataFrame) -> None:
    """Draw a line for each contestant; the steps of a sweep are equally far apart."""
    steps: list[int] = sweep["at"].unique().sort().to_list()
    for line in sweep.partition_by("contestant", maintain_order=True):
        if line["cell"][0].startswith("bursts") and line["at"][-1] != steps[-1]:
            continue  # one that cannot go so far would end in the middle of the others
        at = [steps.index(step) for step in line["at"]]
        [drawn] = panel.plot(at, line["median"].to_list(), marker="o", label=line["contestant"][0])
        panel.fill_between(at, line["min"], line["max"], color=drawn.get_color(), alpha=0.12, lw=0)
    every = -(-len(steps) // 5)
    panel.set_xticks(range(0, len(steps), every), [_short(step) for step in steps[::every]])
    if panel.get_yscale() == "linear":
        panel.set_ylim(bottom=0)
