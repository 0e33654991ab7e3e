"""How many cores and nodes a number of decisions a second needs, from what a decision costs and calls for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from ratelimit.engine.keyspace import SHARDS

MAX_PRIMARIES: Final = SHARDS
BUSY: Final = 0.6
"""The part of a core's time that is planned for: above it, queues grow."""

# From docs/benchmarks.md: what a decision costs a sidecar, microseconds of its processor.
HTTP_US: Final = 55.0  # POST /v1/check, of 50 to 60
LEASED_US: Final = 0.8  # in a process that calls the library, from a lease


@dataclass(frozen=True)
class Costs:
    """Microseconds of a processor.

    Attributes:
        call: of a node, for each call.
        check: of a node, for each check in a call.
        client_call: of a process with the library, for each call.
        client_check: likewise for each check.
    """

    call: float
    check: float
    client_call: float
    client_check: float


def fit_costs(
    checks_per_call: Sequence[float], node_us: Sequence[float], client_us: Sequence[float]
) -> Costs:
    """Find what a call and a check cost, from the time for a decision at several sizes of calls.

    A decision in a call with n checks takes call / n + check: a straight line over 1 / n.
    """
    inverse = [1 / size for size in checks_per_call]
    call, check = np.polyfit(inverse, node_us, 1)
    client_call, client_check = np.polyfit(inverse, client_us, 1)
    return Costs(float(call), float(check), float(client_call), float(client_check))


@dataclass(frozen=True)
class Size:
    """What a load needs.

    Attributes:
        node_us: microseconds of the store for a decision.
        store_cores: cores of the store that are busy.
        nodes: primaries, if they were loaded evenly and no busier than `BUSY`.
        busiest: how busy the hottest of `MAX_PRIMARIES` is; above 1 it cannot keep up.
        http_cores: cores of sidecars, no busier than `BUSY`.
    """

    node_us: float
    store_cores: float
    nodes: int
    busiest: float
    http_cores: int


def size(rate: float, found: Mapping[str, float], costs: Costs, http_us: float = HTTP_US) -> Size:
    """Return what a rate of decisions a second needs.

    Args:
        rate: decisions a second.
        found: of a simulation: `calls_per_check`, `to_store_share`; `hottest_node` of `MAX_PRIMARIES` nodes.
        costs: what calls and checks cost.
        http_us: what a decision costs a sidecar.
    """
    node_us = found["calls_per_check"] * costs.call + found["to_store_share"] * costs.check
    cores = rate * node_us / 1e6
    return Size(
        node_us,
        cores,
        ceil(cores / BUSY),
        cores / MAX_PRIMARIES * found["hottest_node"],
        ceil(rate * http_us / 1e6 / BUSY),
    )
