"""Two gateways, with and without each limiter in front, on one store.

nginx runs the configuration of examples/nginx with the ports of the day, the API replaced by an
answer of nginx's own, and more patience: a busy machine is not an outage, and what nginx lets
through unasked would be no figure of a limiter.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from benchmarks import sidecar
from benchmarks.gateways import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).resolve().parent
NGINX: Final = sidecar.ROOT / "examples" / "nginx" / "nginx.conf"
ANSWER: Final = "empty_gif;"
"""nginx's own answer. Not `return`, which nginx obeys before it would ask any limiter."""

_PLAIN: Final = "/plain"
_PATIENCE: Final = "5s"
_SETTINGS: Final = {"deadline": _PATIENCE, "key_pepper": "benchmark"}
_THREE: Final = "X-RateLimit-Plan: three\r\nX-RateLimit-Cost: tokens=100\r\n"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A gateway and what it asks.

    Attributes:
        name: for machines.
        title: for people.
        port: where the gateway listens.
        path: the route that leads past the limiter.
        limits: how many limits are decided for a request, 0 where nobody is asked.
        headers: what a request carries beside its key.
    """

    name: str
    title: str
    port: int
    path: str = "/"
    limits: int = 1
    headers: str = ""

    def request(self, key: str) -> bytes:
        """Return the bytes of a request: nginx reads the key as a secret, Traefik as an identifier."""
        head = f"GET {self.path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        return f"{head}X-RateLimit-Key: {key}\r\n{self.headers}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Arena:
    """What runs: the contestants, in pairs that can be compared, and the port of the store they share."""

    contestants: tuple[Contestant, ...]
    store: int


@contextlib.contextmanager
def opened(burst: int) -> Iterator[Arena]:
    """Start everything; each key may make `burst` requests, and one more an hour.

    Raises:
        SidecarError: a program is not installed or did not start.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        policy = _filled("policy.yaml", folder, burst=burst)
        store = stack.enter_context(programs.valkey(folder / "valkey"))
        redis = f"redis://127.0.0.1:{store}"
        asked = stack.enter_context(sidecar.running(policy, redis=redis, **_SETTINGS))
        unix = _unix_sidecar(stack, policy, redis, folder)
        address = f"{asked.host}:{asked.port}"
        routes = _filled("traefik.yaml", folder, burst=burst, sidecar=address, store=f"127.0.0.1:{store}")
        traefik = programs.free_port()
        command = programs.traefik(traefik, routes)
        stack.enter_context(
            programs.running(command, folder / "traefik.log", lambda: programs.serves(traefik, _PLAIN))
        )
        contestants = (
            Contestant("nginx", "nginx", _nginx(stack, folder / "plain", None), limits=0),
            Contestant("nginx-sidecar", "nginx, sidecar", _nginx(stack, folder / "tcp", address)),
            Contestant(
                "nginx-sidecar-unix", "… by Unix socket", _nginx(stack, folder / "unix", f"unix:{unix}")
            ),
            Contestant("traefik", "Traefik", traefik, _PLAIN, limits=0),
            Contestant("traefik-own", "Traefik, its own", traefik, "/own"),
            Contestant("traefik-sidecar", "Traefik, sidecar", traefik, "/sidecar"),
            Contestant("traefik-sidecar-three", "… three limits", traefik, "/sidecar", 3, _THREE),
        )
        yield Arena(contestants, store)


def _unix_sidecar(stack: contextlib.ExitStack, policy: Path, redis: str, folder: Path) -> Path:
    address = folder / "sidecar.sock"
    settings: dict[str, str | Path] = {"policy": policy, "redis": redis, "uds": address, **_SETTINGS}
    command: list[str | Path] = [sys.executable, "-m", "service", "serve"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", value]
    stack.enter_context(programs.running(command, folder / "sidecar.log", lambda: programs.listens(address)))
    return address


def _nginx(stack: contextlib.ExitStack, folder: Path, asks: str | None) -> int:
    """Start nginx, asking the sidecar at that address or nobody, and return its port."""
    port = programs.free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(nginx_conf(port, asks), encoding="utf-8")
    stack.enter_context(
        programs.running(programs.nginx(folder), folder / "output.log", lambda: programs.listens(port))
    )
    return port


def nginx_conf(port: int, asks: str | None) -> str:
    """Return the example's configuration, changed by what the benchmark must change and no more.

    Raises:
        ProgramError: the example no longer has a line that must change.
    """
    changes = {
        "listen 8000;": f"listen 127.0.0.1:{port};",
        "proxy_pass http://api;": ANSWER,
        "proxy_connect_timeout 50ms;": f"proxy_connect_timeout {_PATIENCE};",
        "proxy_send_timeout    50ms;": f"proxy_send_timeout {_PATIENCE};",
        "proxy_read_timeout    100ms;": f"proxy_read_timeout {_PATIENCE};",
    }
    if asks is None:
        changes["auth_request     /_ratelimit;"] = ""
    else:
        changes["server 127.0.0.1:8080;"] = f"server {asks};"
    text = NGINX.read_text(encoding="utf-8")
    for shipped, here in changes.items():
        if text.count(shipped) != 1:
            raise programs.ProgramError(f"{NGINX.name} must have one line {shipped!r}")
        text = text.replace(shipped, here)
    return text


def _filled(name: str, folder: Path, **values: object) -> Path:
    template = Template((HERE / name).read_text(encoding="utf-8"))
    path = folder / name
    path.write_text(template.safe_substitute(values), encoding="utf-8")
    return path
