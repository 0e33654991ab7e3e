"""How far an estimate lay off: how often it was too much or too little, and by how many tokens."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.report import share

if TYPE_CHECKING:
    from collections.abc import Sequence


def shots(estimate: int, generated: Sequence[int]) -> dict[str, Any]:
    """Return the figures.

    Args:
        estimate: output tokens that were reserved for each request.
        generated: output tokens that each request really had.
    """
    over = [estimate - tokens for tokens in generated if tokens < estimate]
    under = [tokens - estimate for tokens in generated if tokens > estimate]
    return {
        "settled": len(generated),
        "output_estimated": estimate * len(generated),
        "output_used": sum(generated),
        "over": _shot(over, len(generated)),
        "under": _shot(under, len(generated)),
        "exact": len(generated) - len(over) - len(under),
    }


def _shot(tokens: list[int], total: int) -> dict[str, float]:
    return {
        "count": len(tokens),
        "share": len(tokens) / total if total else 0.0,
        "tokens": sum(tokens),
        "median": statistics.median(tokens) if tokens else 0,
        "most": max(tokens, default=0),
    }


def rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what `shots` returned, for people."""

    def told(shot: dict[str, float]) -> str:
        counted = share(int(shot["count"]), figures["settled"])
        return f"{counted} by {shot['tokens']:,} tokens; median {shot['median']:,g}, most {shot['most']:,}"

    estimated, used = figures["output_estimated"], figures["output_used"]
    times = f", {estimated / used:.1f} times the" if used else " for"
    return [
        ("over-shot", told(figures["over"])),
        ("under-shot", told(figures["under"])),
        ("output tokens", f"{estimated:,} estimated{times} {used:,} generated"),
    ]
