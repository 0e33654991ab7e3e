"""`ratelimit serve`: the sidecar."""

from __future__ import annotations

import errno
import gc
import os
import secrets
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic
import structlog
import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from ratelimit import Limiter, Policy, RateLimitError, StoreUnavailable
from service import logs
from service.app import create_app
from service.cli.banner import announce
from service.cli.output import fail
from service.protocol import Protocol
from service.reload import keep
from service.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = structlog.get_logger("ratelimit")

SERVER: Final[dict[str, Any]] = {
    "loop": "uvloop",  # by name: uvicorn would do without these two, and not say so
    "http": Protocol,
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "ws": "none",  # a gateway that forwards an upgrade still asks an HTTP question
    "proxy_headers": False,  # we read X-Forwarded-For ourselves, from the right
    "timeout_graceful_shutdown": 10,
    "backlog": 2048,
}
"""How uvicorn serves."""


def serve(  # noqa: PLR0913, PLR0917 - one parameter for each setting
    policy: Annotated[str | None, typer.Option("--policy", "-p", help="The policy file.")] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            help="The store: redis://, rediss://, unix://, embedded://[/path], memory://. [default: embedded://]"
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        str | None, typer.Option(help="Port to listen on, 0 for a free one. [default: 8080]")
    ] = None,
    uds: Annotated[str | None, typer.Option(help="Unix socket to listen on instead.")] = None,
    workers: Annotated[str | None, typer.Option(help="Processes that answer. [default: 1]")] = None,
    admin_token: Annotated[str | None, typer.Option(help="Opens the operators' endpoints.")] = None,
    gateway_token: Annotated[str | None, typer.Option(help="Asked of every other /v1 call.")] = None,
    key_pepper: Annotated[
        str | None, typer.Option(help="The key under which secrets become identifiers.")
    ] = None,
    deadline: Annotated[str | None, typer.Option(help="Time the store may take. [default: 50ms]")] = None,
    max_skew: Annotated[
        str | None, typer.Option(help="How far ahead a timestamp may lie; none to trust them. [default: 5s]")
    ] = None,
    remember: Annotated[
        str | None, typer.Option(help="How long reservations and request ids are remembered. [default: 10m]")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="Header dialects: ietf, openai, venice. [default: ietf]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json. [default: console]")] = None,
    trusted_proxies: Annotated[
        str | None, typer.Option(help="Networks whose X-Forwarded-For is believed. [default: loopback]")
    ] = None,
) -> None:
    """Answer gateways. Every flag is also RATELIMIT_<NAME> in the environment."""
    given = {name: value for name, value in locals().items() if value is not None}
    settings = _settings(given)
    logs.configure(settings.log_format)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # means reload, also while there is nothing to reload yet
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server raises the signal again when it has answered what was under way: leave, and clean up.
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        running_policy = Policy.from_file(settings.policy)
        # Held open until the end: an embedded server lives as long as somebody uses it.
        with Limiter(settings.redis, running_policy) as keeper:
            _greet_store(keeper)
            listener = _listen(settings)
            announce(settings, listener, keeper)
            _run(settings, listener, keeper)
    except RateLimitError as error:
        fail(error)


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except pydantic.ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            message = "required: the policy file to serve" if detail["type"] == "missing" else detail["msg"]
            typer.echo(
                f"ratelimit: --{name.replace('_', '-')} (RATELIMIT_{name.upper()}): {message}", err=True
            )
        raise typer.Exit(2) from None
    except RateLimitError as error:
        fail(error)


def _greet_store(limiter: Limiter) -> None:
    """Start without the store if need be: that is what `on_outage` is for. Not if it turns us away."""
    try:
        limiter.ping()
    except StoreUnavailable as error:
        if error.refused:
            fail(error)
        log.warning("the store does not answer yet, each limit's on_outage applies", store=limiter.store)


def _listen(settings: Settings) -> socket.socket:
    """Listen at once: from here on callers wait for us rather than being turned away."""
    try:
        if settings.uds is not None:
            return _listen_unix(settings.uds)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = settings.uds or f"{settings.host}:{settings.port}"
        reason = os.strerror(error.errno) if error.errno else error
        fail(f"cannot listen on {where}: {reason}; choose another with --port or --uds")


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()  # left behind by a process that is gone
    listener.bind(str(path))
    path.chmod(0o666)  # as for a port: who may connect is for the folder, and the gateway token, to say
    listener.listen(2048)
    return listener


def _run(settings: Settings, listener: socket.socket, keeper: Limiter) -> None:
    try:
        if settings.workers == 1:
            uvicorn.Server(uvicorn.Config(_application(settings), **SERVER)).run(sockets=[listener])
        else:
            _run_workers(settings, listener, keeper)
    finally:
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _run_workers(settings: Settings, listener: socket.socket, keeper: Limiter) -> None:
    with tempfile.TemporaryDirectory(prefix="ratelimit-policy-") as folder:
        last = Path(folder, "policy.json")
        keep(keeper.policy, last)
        _share(settings, keeper, last)
        config = uvicorn.Config("service.cli.serve:worker", factory=True, workers=settings.workers, **SERVER)
        Multiprocess(config, sockets=[listener]).run()


def worker() -> FastAPI:
    """Make the application of one of several processes, from the environment that the first one set."""
    settings = Settings()
    logs.configure(settings.log_format)
    return _application(settings)


def _application(settings: Settings) -> FastAPI:
    app = create_app(settings)
    lasting()
    return app


def lasting() -> None:
    """Let the garbage collector pass over all that was made so far: it lasts as long as the process.

    Looking through it again and again took a tenth of each check. What a check makes is freed without the
    collector; that it looks for cycles less often than Python's usual 700 objects gives another twentieth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _share(settings: Settings, keeper: Limiter, last: Path) -> None:
    """Hand the settings down to other processes, with one store and one pepper for all of them."""
    if settings.redis.startswith("memory:"):
        fail("--workers: memory:// cannot be shared between processes; use embedded:// or redis://")
    pepper = settings.key_pepper.get_secret_value() if settings.key_pepper else secrets.token_hex(32)
    values: dict[str, Any] = {
        **settings.model_dump(mode="json", exclude_none=True, exclude={"max_skew"}),
        "redis": keeper.address,
        "max_skew": "none" if settings.max_skew is None else settings.max_skew,
        "key_pepper": pepper,
        "last_policy": last,
    }
    for name in ("admin_token", "gateway_token"):
        token = getattr(settings, name)
        if token is not None:
            values[name] = token.get_secret_value()
    for name, value in values.items():
        text = ",".join(str(item) for item in value) if isinstance(value, list) else str(value)
        os.environ[f"RATELIMIT_{name.upper()}"] = text
