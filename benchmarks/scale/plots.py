"""The figures of the simulation as pictures."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from ratelimit.engine.keyspace import SHARDS

WIDTH: Final = 8.0
SWEEPS: Final = {
    "sidecars": "Sidecars that share 20,000 checks a second",
    "checks a second of a sidecar": "Checks a second of each of 10 sidecars",
}
_short: Final = EngFormatter(sep="")


def draw(frame: pl.DataFrame, folder: Path) -> list[str]:
    """Draw what was simulated; return the names of the pictures."""
    pads: Any = {f"figure.constrained_layout.{side}_pad": 0.1 for side in "hw"}
    with mpl.rc_context(pads, fname=Path(__file__).parents[1] / "plots.mplstyle"):
        drawn = {"scale": _draw_scale(frame), "scale-regions": _draw_regions(frame)}
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in drawn.items():
            picture.savefig(folder / f"{name}.svg", metadata={"Date": None})
            picture.savefig(folder / f"{name}.png", dpi=100)
    return list(drawn)


def _draw_scale(frame: pl.DataFrame) -> Figure:
    picture = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    panels = picture.subplots(2, 2)
    for panel, (cell, title) in zip(panels[0], SWEEPS.items(), strict=True):
        _draw_lines(panel, frame.filter(cell=cell, figure="calls_per_check"))
        panel.set(title="Calls to the store per check", xlabel=title)
        panel.set_ylim(0, 1.1)
    _draw_nodes(panels[1][0], frame)
    _draw_lease_sizes(panels[1][1], frame)
    return picture


def _draw_lines(panel: Axes, sweep: pl.DataFrame) -> None:
    for line in sweep.sort("at").partition_by("contestant", maintain_order=True):
        panel.plot(line["at"], line["median"], marker="o", label=line["contestant"][0])
    _set_steps(panel, sweep)
    panel.legend(loc="lower left")


def _set_steps(panel: Axes, sweep: pl.DataFrame) -> None:
    """Give the axis a tick for each step of a sweep, at logarithmic distances."""
    steps = sweep["at"].unique().sort().to_list()
    panel.set_xscale("log")
    panel.set_xticks(steps, [_short(step) for step in steps])
    panel.minorticks_off()


def _draw_nodes(panel: Axes, frame: pl.DataFrame) -> None:
    """Draw which part of all calls the hottest node has, beside an even share."""
    sweep = frame.filter(cell="nodes", figure="hottest_node", contestant="without leases").sort("at")
    nodes = sweep["at"].to_list()
    share = [ratio / count for ratio, count in zip(sweep["median"], nodes, strict=True)]
    panel.plot(nodes, share, marker="o", label="the hottest node")
    panel.plot(nodes, [1 / count for count in nodes], marker="o", label="an even share")
    panel.axvline(SHARDS, color="#b8c2cc", lw=1)
    panel.annotate(f"{SHARDS} shards", (SHARDS, 1), (4, -8), textcoords="offset points", color="#7b8794")
    _set_steps(panel, sweep)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set(title="Share of all calls", xlabel="Nodes", ylim=(0, 1.05))
    panel.legend(loc="center right")


def _draw_lease_sizes(panel: Axes, frame: pl.DataFrame) -> None:
    """Draw calls per check by the size of a lease, and what of the limit is used above it."""
    sweep = frame.filter(cell="lease size").sort("at")
    for load in sweep["contestant"].unique(maintain_order=True).to_list():
        line = sweep.filter(contestant=load, figure="calls_per_check")
        panel.plot([at / 10 for at in line["at"]], line["median"], marker="o", label=load)
    panel.set_xscale("log")
    panel.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    panel.minorticks_off()
    panel.set(title="Calls per check of one tenant", xlabel="Lease, percent of the burst; 20 sidecars")
    panel.set_ylim(bottom=0)
    panel.legend(title="It asks for")


def _draw_regions(frame: pl.DataFrame) -> Figure:
    found = frame.filter(cell="three regions")
    names = found["contestant"].unique(maintain_order=True).to_list()[::-1]
    picture = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = picture.subplots(1, 2, sharey=True)
    titles = {
        "admitted_share": "Admitted of 90 % of the limit",
        "far_wait_share": "Waited for another region",
    }
    for panel, (figure, title) in zip(panels, titles.items(), strict=True):
        values = found.filter(figure=figure)
        shares = dict(zip(values["contestant"], values["median"], strict=True))
        panel.barh(names, [shares[name] for name in names], color="#0b6bcb", height=0.66)
        for name in names:
            panel.annotate(
                f"{shares[name]:.1%}", (shares[name], name), (5, 0), "data", "offset points", va="center"
            )
        panel.xaxis.set_major_formatter(PercentFormatter(1))
        panel.set(title=title, xlim=(0, 1.19))
        panel.tick_params(axis="y", length=0, labelcolor="#1f2933")
    return picture
