"""What a limiter costs at a real gateway: nginx and Traefik, alone and asking the sidecar, and Traefik's own.

Every request travels through the gateway to an answer that the gateway itself has ready, so what
is measured is the gateway and its limiter. Traefik's own limiter and the sidecar use the same store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.gateways.measurement import Scale, measure
from benchmarks.gateways.results import result_of

if TYPE_CHECKING:
    from benchmarks.report import Result

QUICK: Final = Scale(rounds=2, times=2)


def run(rounds: int = 5, *, quick: bool = False) -> Result:
    """Run the benchmark.

    Args:
        rounds: how often each contestant is measured.
        quick: measure less, for a first impression.

    Raises:
        SidecarError: a program is not installed or did not start.
        ClientError: a gateway did not answer.
    """
    scale = QUICK if quick else Scale(rounds)
    return result_of(measure(scale), scale)
