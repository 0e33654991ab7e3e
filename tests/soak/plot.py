"""A soak as a picture: memory, descriptors and latencies over time, with the failovers."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE = Path(__file__).parents[2] / "benchmarks" / "plots.mplstyle"
PANELS = [
    ("Memory of the sidecar, MB", ["sidecar"]),
    ("Memory of the store, MB", ["store"]),
    ("Open descriptors of the sidecar", ["descriptors"]),
    ("Milliseconds to an answer", ["p50", "p99"]),
]


def draw_soak(result, path):
    """Draw a result of a soak as an SVG and a PNG; `path` has no ending."""
    with mpl.rc_context(fname=STYLE):
        picture = Figure(figsize=(8, 8), layout="constrained")
        axes = picture.subplots(len(PANELS), 1, sharex=True)
        for panel, (title, names) in zip(axes, PANELS, strict=True):
            for name in names:
                seconds = [sample.at for sample in result.samples]
                panel.plot(seconds, [getattr(sample, name) for sample in result.samples], label=name)
            for second in result.failovers:
                panel.axvline(second, color="#d64545", lw=0.8, ls=":", zorder=0)
            panel.set_title(title)
            if len(names) > 1:
                panel.set_yscale("log")
                panel.legend(ncols=2, loc="upper right")
            else:
                panel.set_ylim(bottom=0)
        axes[-1].set_xlabel("seconds; dotted: a failover begins")
        picture.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        picture.savefig(path.with_suffix(".png"), dpi=100)
