"""What a limiter costs at each gateway: the gateway alone, with the sidecar, and Traefik's own limiter."""

import contextlib
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple

from benchmarks import gateway_configs, programs
from benchmarks.figures import Cell, Found, percentile
from benchmarks.load import Load, get, send
from benchmarks.runner import Benchmark

CONNECTIONS: Final = 16
DRIVEN: Final = 16  # keys that are driven over their limit
_SPARE: Final = 50  # requests that each key could still have made after all rounds
# Times as many requests where no limiter is asked, or a round would be too short. Not more: nginx closes a
# connection after 1,000 requests.
_FASTER: Final = 3
THREE: Final = {"X-RateLimit-Plan": "three", "X-RateLimit-Cost": "tokens=100"}


class Gateway(NamedTuple):
    path: str = "/"  # the route that leads past the limiter
    limits: int = 1  # how many are decided for a request, 0 where no limiter is asked
    alone: str = ""  # the contestant that is the same gateway without a limiter
    headers: Mapping[str, str] = MappingProxyType({})  # what a request carries beside its key

    def request(self, key: str) -> bytes:  # nginx reads the key as a secret, Traefik as an identifier
        return get(self.path, {"Authorization": f"Bearer {key}", "X-RateLimit-Key": key, **self.headers})


GATEWAYS: Final = {
    "nginx": Gateway(limits=0),
    "nginx-sidecar": Gateway(alone="nginx"),
    "nginx-sidecar-unix": Gateway(alone="nginx"),
    "traefik": Gateway("/plain", limits=0),
    "traefik-own": Gateway("/own", alone="traefik"),
    "traefik-sidecar": Gateway("/sidecar", alone="traefik"),
    "traefik-sidecar-three": Gateway("/sidecar", 3, "traefik", THREE),
    "caddy": Gateway(limits=0),
    "caddy-sidecar": Gateway(alone="caddy"),
    "haproxy": Gateway(limits=0),
    "haproxy-sidecar": Gateway(alone="haproxy"),
    "envoy": Gateway(limits=0),
    "envoy-sidecar-http": Gateway(alone="envoy"),
    "envoy-sidecar-grpc": Gateway(alone="envoy"),
}
CELL: Final = Cell(f"{CONNECTIONS} connections", contestants=tuple(GATEWAYS))
RATE: Final = "requests_per_second"
_OWN_SCRIPTS: Final = 4  # of the sidecar, which reports for `ratelimit top` while no request comes, too
P50: Final = "p50_ms_of_the_round"


@dataclass
class Gateways(Benchmark):
    name = "gateways"
    title = "Requests through real gateways"
    quick: ClassVar = {"rounds": 2, "times": 2}
    cell = CELL
    rounds: int = 5
    keys: int = 1000
    times: int = 4  # each key in a round

    @property
    def uses(self) -> int:  # of each key, in all rounds and once before to warm up
        return 1 + self.rounds * self.times

    @property
    def burst(self) -> int:  # requests that each key may make
        return self.uses + _SPARE

    def prepare(self) -> None:
        self._latencies: dict[str, list[float]] = defaultdict(list)
        self._wrong: dict[str, Counter[int]] = defaultdict(Counter)  # not 200
        self._ports = start(self.stack, self.server.port, self.burst)
        for name in GATEWAYS:
            self._ask(name, self.keys, 1)

    def measure(self, _cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        times = self.times * (1 if GATEWAYS[name].limits else _FASTER)
        self.server.forget()
        load, statuses = self._ask(name, self.keys, times)
        spent, count = self.server.spent(), self.keys * times
        self._latencies[name] += load.latencies
        del statuses[200]
        self._wrong[name] += statuses
        return {
            RATE: load.rate,
            P50: 1000 * percentile(load.latencies, 50),
            "client_cores": load.client_cores,
            "scripts_a_request": spent.scripts / count,
            "commands_a_request": sum(spent.calls.values()) / count,
            "script_us_a_request": spent.on() / count,
            "store_us_a_request": spent.process / count,
        }

    def _ask(self, name: str, keys: int, times: int) -> tuple[Load, Counter[int]]:
        """Ask about each key so many times; contestants share no keys, and so no buckets."""
        requests = [GATEWAYS[name].request(f"vk_{name}_{key:04}") for key in range(keys)] * times
        random.Random(times).shuffle(requests)
        lanes = [requests[lane::CONNECTIONS] for lane in range(CONNECTIONS)]
        load = send((programs.HOST, self._ports[name]), lanes)
        return load, Counter(answer.status for lane in load.answers for answer in lane)

    def notes(self) -> dict[str, object]:
        return {
            "all but Traefik ask": "as their examples do: a secret to hash, and over HTTP an id to remember",
            "behind Envoy": "nginx, which answers at once; the other gateways answer themselves",
            "Traefik asks": "the sidecar by ForwardAuth, with the key's identifier: one limit, or three",
            "Traefik's own": "rateLimit on the same store: one limit of one unit, by the gateway's clock",
        }

    def _has_asked(self, scripts_a_request: float) -> bool:
        """Return whether a round ran more scripts than the sidecar does by itself."""
        requests = self.keys * self.times
        return scripts_a_request * requests > max(_OWN_SCRIPTS, requests / 100)

    def conclude(self, found: Found) -> Iterator[str]:
        for name, gateway in GATEWAYS.items():
            latencies, wrong = self._latencies[name], self._wrong[name]
            latency = {f"p{p}_ms": 1000 * percentile(latencies, p) for p in (50, 99)}
            found.note(CELL, name, {"limits": gateway.limits, "requests": len(latencies), **latency})
            if wrong:
                listed = ", ".join(f"{count:,} of {status}" for status, count in wrong.items())
                yield f"{name}: within the limits were answered otherwise than by 200: {listed}"
            if gateway.limits:
                yield from self._conclude_limiter(found, name)
            elif self._has_asked(max(found.rounds(CELL, name, "scripts_a_request"))):
                yield f"{name}: has no limiter, yet the store was asked"

    def _conclude_limiter(self, found: Found, name: str) -> Iterator[str]:
        keys = min(DRIVEN, self.keys)
        _, driven = self._ask(name, keys, self.burst)
        over = {"requests": driven.total(), "denied": driven[429], "expected": keys * self.uses}
        found.note(CELL, name, {f"over_limit_{what}": count for what, count in over.items()})
        rounds = zip(*(found.rounds(CELL, one, P50) for one in (name, GATEWAYS[name].alone)), strict=True)
        found.add(CELL, name, "added_p50_ms", (with_it - without for with_it, without in rounds))
        if name.startswith("traefik-sidecar"):
            times = found.ratio(CELL, name, "traefik-own", RATE)
            found.add(CELL, name, "requests_divided_by_traefik_own", times)
        if over["denied"] != over["expected"]:
            yield f"{name}: the limiter did not decide every request: beyond the limits, {over}"


def start(stack: contextlib.ExitStack, store: int, burst: int) -> dict[str, int]:
    """Start everything; return the port of each contestant's gateway."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
    policy = _filled("gateways.yaml", folder, burst=burst)
    grpc = programs.free_port()
    settings = {"redis": f"redis://{programs.HOST}:{store}", "key_pepper": "benchmark"}
    host, port = stack.enter_context(programs.sidecar(policy, grpc_port=str(grpc), **settings))
    stack.enter_context(programs.sidecar(policy, uds=f"{folder}/sidecar.sock", **settings))
    sidecar, valkey = f"{host}:{port}", f"{programs.HOST}:{store}"
    routes = _filled("traefik.yaml", folder, burst=burst, sidecar=sidecar, store=valkey)
    traefik = stack.enter_context(programs.traefik(routes, GATEWAYS["traefik"].path))
    ports = {name: traefik if name.startswith("traefik") else programs.free_port() for name in GATEWAYS}
    socket = f"unix:{folder}/sidecar.sock"
    for name, upstream in (("nginx", None), ("nginx-sidecar", sidecar), ("nginx-sidecar-unix", socket)):
        conf = gateway_configs.nginx(ports[name], upstream)
        stack.enter_context(programs.nginx(conf, ports[name]))
    for name, upstream in (("caddy", None), ("caddy-sidecar", sidecar)):
        conf = gateway_configs.caddy(ports[name], upstream)
        stack.enter_context(programs.caddy(conf, ports[name]))
    for name, upstream in (("haproxy", None), ("haproxy-sidecar", sidecar)):
        files = gateway_configs.haproxy(ports[name], upstream)
        stack.enter_context(programs.haproxy(files, ports[name]))
    envoys = {"envoy": ("envoy-http", None), "envoy-sidecar-http": ("envoy-http", port)}
    for name, (file, to) in {**envoys, "envoy-sidecar-grpc": ("envoy-grpc", grpc)}.items():
        conf = gateway_configs.envoy(ports[name], f"{file}.yaml", to, ports["nginx"])
        stack.enter_context(programs.envoy(conf, ports[name]))
    return ports


def _filled(name: str, folder: Path, **values: object) -> Path:
    template = Template((programs.HERE / "policies" / name).read_text(encoding="utf-8"))
    (path := folder / name).write_text(template.safe_substitute(values), encoding="utf-8")
    return path
