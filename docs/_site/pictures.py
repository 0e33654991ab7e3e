"""The pictures of docs/concepts.md: `python docs/_site/pictures.py` writes them to docs/figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FIGURES: Final = Path(__file__).parents[1] / "figures"

_STYLE: Final = """
  svg { font: 14px system-ui, sans-serif;
    --page: #ffffff; --text: #24292f; --quiet: #6e7781; --line: #d0d7de;
    --blue: #2563eb; --fill: #dbe6fd; --red: #c2301c; --green: #1a7f37; }
  @media (prefers-color-scheme: dark) { svg {
    --page: #1e2129; --text: #e6e8ec; --quiet: #a0a7b4; --line: #444b57;
    --blue: #7aa7ff; --fill: #2b3a5c; --red: #ff8a75; --green: #6fce85; } }
  .page { fill: var(--page); }
  text { fill: var(--text); }
  .quiet { fill: var(--quiet); }
  .bad { fill: var(--red); }
  .good { fill: var(--green); }
  .line { stroke: var(--line); }
  .mark { stroke: var(--quiet); stroke-dasharray: 3 4; }
  .level { fill: none; stroke: var(--blue); stroke-width: 2.5; }
  .area { fill: var(--fill); }
  .owed { fill: var(--red); opacity: 0.2; }
  .box { fill: none; stroke: var(--blue); stroke-width: 1.5; }
  .arrow { fill: none; stroke: var(--text); stroke-width: 1.5; }
"""

_ARROW_TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="context-stroke"/></marker></defs>'
)


@dataclass
class Chart:
    """What a bucket holds over time: a line that falls at each charge and rises at the limit's rate."""

    until: float
    low: float
    burst: float
    rate: float
    parts: list[str] = field(default_factory=list)
    width: int = 720
    height: int = 300
    points: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.points = [(0.0, self.burst)]

    def place(self, time: float, level: float) -> tuple[float, float]:
        """Return where a time and a level are in the picture."""
        left, top, right, bottom = 70, 62, self.width - 24, self.height - 38
        height = (self.burst - level) / (self.burst - self.low)
        return left + time / self.until * (right - left), top + height * (bottom - top)

    def advance(self, time: float) -> float:
        """Refill until a time, and return the level then."""
        before, level = self.points[-1]
        full = before + (self.burst - level) / self.rate
        if full < time:
            self.points.append((full, self.burst))
        level = min(self.burst, level + (time - before) * self.rate)
        self.points.append((time, level))
        return level

    def charge(self, time: float, amount: float) -> None:
        """Take an amount at a time; a negative one is given back."""
        self.points.append((time, self.advance(time) - amount))

    def note(self, time: float, text: str, kind: str = "text", row: int = 0, anchor: str = "middle") -> None:
        """Write a text above the chart, with a line down to a time."""
        x, _ = self.place(time, 0)
        self.parts.append(f'<path class="mark" d="M{x:.1f} {36 + 18 * row} V{self.height - 38}"/>')
        shift = {"start": -4, "end": 4}.get(anchor, 0)
        place = f'x="{x + shift:.1f}" y="{30 + 18 * row}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {place}>{text}</text>')

    def draw(self, title: str, unit: str, ticks: list[float], times: list[tuple[float, str]]) -> str:
        """Return the picture as SVG."""
        self.advance(self.until)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.place(*point) for point in self.points))
        (left, zero), (right, _) = self.place(0, 0), self.place(self.until, 0)
        area = f"{left},{zero:.1f} {line} {right:.1f},{zero:.1f}"
        clip = f'<clipPath id="above"><rect x="0" y="0" width="{self.width}" height="{zero:.1f}"/></clipPath>'
        below = (
            f'<clipPath id="below"><rect x="0" y="{zero:.1f}" width="{self.width}" height="400"/></clipPath>'
        )
        grid = []
        for tick in ticks:
            _, y = self.place(0, tick)
            grid.append(f'<path class="line" d="M{left} {y:.1f} H{right:.1f}"/>')
            grid.append(
                f'<text class="quiet" x="{left - 8}" y="{y + 5:.1f}" text-anchor="end">{tick:,.0f}</text>'
            )
        for time, text in times:
            x, _ = self.place(time, 0)
            grid.append(
                f'<text class="quiet" x="{x:.1f}" y="{self.height - 14}" text-anchor="middle">{text}</text>'
            )
        grid.append(f'<text class="quiet" x="8" y="22">{unit}</text>')
        shapes = [
            clip,
            below,
            f'<polygon class="area" clip-path="url(#above)" points="{area}"/>',
            f'<polygon class="owed" clip-path="url(#below)" points="{area}"/>',
            *grid,
            *self.parts,
            f'<polyline class="level" points="{line}"/>',
        ]
        return wrap(title, self.width, self.height, shapes)


def wrap(title: str, width: int, height: int, shapes: list[str]) -> str:
    """Return shapes as an SVG document with its own page, light or dark as its reader prefers."""
    body = "\n".join(shapes)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>\n{body}\n</svg>\n'
    )


def draw_bucket() -> str:
    """A burst of five, one denial, and the refill."""
    chart = Chart(until=21, low=0, burst=5, rate=1 / 3)
    for number in range(5):
        chart.charge(2 + number * 0.3, 1)
    chart.note(2.6, "five pass", "good")
    chart.note(4.3, "denied: wait 0.7 s", "bad", row=1, anchor="start")
    chart.charge(5.0, 1)
    chart.note(5.0, "passes", "good", anchor="start")
    chart.note(20.0, "full again", "quiet", anchor="end")
    return chart.draw(
        "A bucket with 20 requests a minute and a burst of 5",
        "requests left",
        [0, 1, 2, 3, 4, 5],
        [(second, f"{second} s") for second in (0, 5, 10, 15, 20)],
    )


def draw_debt() -> str:
    """A settlement above the estimate, and the time until the debt is repaid."""
    chart = Chart(until=6, low=-1000, burst=2000, rate=500)
    chart.charge(0.5, 1500)
    chart.note(0.5, "check: 1,500 estimated", anchor="start")
    chart.charge(1.5, 1800)
    chart.note(1.5, "settle: 3,300 used", row=1, anchor="start")
    chart.note(2.4, "denied", "bad", anchor="start")
    x, y = chart.place(2.2, -560)
    chart.parts.append(f'<text class="bad" x="{x + 34:.0f}" y="{y:.0f}">debt</text>')
    chart.note(3.1, "repaid", "good", row=1, anchor="start")
    return chart.draw(
        "What was used above the estimate becomes debt",
        "tokens left",
        [-1000, 0, 1000, 2000],
        [(second, f"{second} s") for second in range(7)],
    )


def draw_reservation() -> str:
    """An estimate that is replaced by what was used."""
    chart = Chart(until=6, low=0, burst=4000, rate=60)
    chart.charge(1, 2000)
    chart.note(1, "check with reserve: 2,000 taken", anchor="start")
    chart.charge(4, -1188)
    chart.note(4, "settle: 812 used, 1,188 given back", "good", row=1, anchor="middle")
    x, y = chart.place(1.3, 1300)
    chart.parts.append(
        f'<text class="quiet" x="{x:.0f}" y="{y:.0f}">the request runs; its slot is taken</text>'
    )
    return chart.draw(
        "A reservation: the estimate is taken first, and replaced by what was used",
        "tokens left",
        [0, 1000, 2000, 3000, 4000],
        [(second, f"{second} s") for second in range(7)],
    )


def draw_lease() -> str:
    """One call to the store for many checks."""
    shapes = [
        _ARROW_TIP,
        '<text x="120" y="30" text-anchor="middle">store</text>',
        '<rect class="box" x="30" y="44" width="180" height="190" rx="8"/>',
        '<rect class="area" x="40" y="104" width="160" height="120" rx="4"/>',
        '<rect class="owed" x="40" y="74" width="160" height="27" rx="4"/>',
        '<text x="120" y="168" text-anchor="middle">900 left of 1,000</text>',
        '<text x="120" y="93" text-anchor="middle">100 out on lease</text>',
    ]
    for number, left in enumerate((37, 12)):
        top = 44 + number * 100
        middle = top + 45
        shapes += [
            f'<path class="arrow" marker-end="url(#tip)" d="M214 {middle} H392"/>',
            f'<text class="quiet" x="303" y="{middle - 9}" text-anchor="middle">one call takes 50</text>',
            f'<rect class="box" x="396" y="{top}" width="150" height="90" rx="8"/>',
            f'<text x="471" y="{top + 28}" text-anchor="middle">process {number + 1}</text>',
            f'<rect class="area" x="408" y="{top + 42}" width="{126 * left / 50:.0f}" height="30" rx="4"/>',
            f'<text x="471" y="{top + 62}" text-anchor="middle">{left} left</text>',
        ]
        for row in range(3):
            y = top + 18 + row * 27
            shapes.append(f'<path class="arrow" marker-end="url(#tip)" d="M640 {y} H550"/>')
        shapes.append(f'<text x="650" y="{top + 44}">checks</text>')
        shapes.append(f'<text class="quiet" x="650" y="{top + 62}">no call</text>')
    return wrap("A lease: a process takes tokens in advance and spends them without a call", 720, 262, shapes)


PICTURES: Final = {
    "concept-bucket.svg": draw_bucket,
    "concept-debt.svg": draw_debt,
    "concept-reservation.svg": draw_reservation,
    "concept-lease.svg": draw_lease,
}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FIGURES / name).write_text(draw())
        print(FIGURES / name)
