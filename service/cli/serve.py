"""`ratelimit serve`: run the sidecar."""

from __future__ import annotations

import errno
import gc
import os
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

from ratelimit import Limiter, Policy, RateLimitError, StoreUnavailable
from service import logs, rls
from service.app import create_app
from service.cli.banner import print_banner
from service.cli.output import fail
from service.cli.warnings import warn_of_unsafe_settings
from service.cli.workers import Workers
from service.metrics import MULTIPROCESS
from service.protocol import JoiningProtocol
from service.reload import save_policy
from service.settings import Settings, StoreSettings, list_setting_faults
from service.sidecar import choose_pepper

if TYPE_CHECKING:
    from fastapi import FastAPI

log = structlog.get_logger("ratelimit")

UVICORN_OPTIONS: Final[dict[str, Any]] = {
    "loop": "uvloop",  # by default uvicorn silently runs without uvloop and httptools if they are missing
    "http": JoiningProtocol,
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "ws": "none",  # a gateway that forwards a WebSocket upgrade expects an HTTP response
    "proxy_headers": False,  # service.identity reads X-Forwarded-For, from the right
    "timeout_graceful_shutdown": 10,
    "backlog": 2048,
}
"""The options of uvicorn, for one process and for workers."""


def serve(  # noqa: PLR0913, PLR0917 - one parameter for each setting
    policy: Annotated[str | None, typer.Option("--policy", "-p", help="The policy file.")] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            help="The store: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, embedded://[/path],"
            " memory://. [default: embedded://]"
        ),
    ] = None,
    redis_ca: Annotated[
        str | None,
        typer.Option(help="The CA certificates that the store's may be from. [default: the system's]"),
    ] = None,
    redis_cert: Annotated[str | None, typer.Option(help="This client's certificate for the store.")] = None,
    redis_key: Annotated[str | None, typer.Option(help="The private key of this certificate.")] = None,
    redis_server_name: Annotated[
        str | None, typer.Option(help="The name in the store's certificate. [default: the URL's host]")
    ] = None,
    redis_password: Annotated[
        str | None,
        typer.Option(help="The store's password. Prefer the environment: flags are visible to other users."),
    ] = None,
    redis_password_file: Annotated[
        str | None, typer.Option(help="A file with this password, read for each connection.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        str | None, typer.Option(help="The port to listen on; 0 chooses a free one. [default: 8080]")
    ] = None,
    grpc_port: Annotated[
        str | None,
        typer.Option(help="The port of Envoy's rate-limit service (gRPC); 0 turns it off. [default: 8081]"),
    ] = None,
    grpc_domains: Annotated[
        str | None, typer.Option(help="The domains that this service knows. [default: every domain]")
    ] = None,
    uds: Annotated[str | None, typer.Option(help="A Unix socket to listen on instead.")] = None,
    workers: Annotated[
        str | None, typer.Option(help="How many processes answer requests. [default: 1]")
    ] = None,
    admin_token: Annotated[str | None, typer.Option(help="The token of the operators' endpoints.")] = None,
    gateway_token: Annotated[str | None, typer.Option(help="The token of all other /v1 calls.")] = None,
    key_pepper: Annotated[
        str | None, typer.Option(help="The secret key of the hash that turns secrets into keys.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="How long one call to the store may take. [default: 50ms]")
    ] = None,
    max_skew: Annotated[
        str | None,
        typer.Option(help="How far a timestamp may be ahead; none accepts every one. [default: 5s]"),
    ] = None,
    remember: Annotated[
        str | None, typer.Option(help="How long reservations and request ids are remembered. [default: 10m]")
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(help="How long to go on answering after SIGTERM, while /readyz fails. [default: 0s]"),
    ] = None,
    usage_length: Annotated[
        str | None, typer.Option(help="How many usage records the store keeps; 0 for none. [default: 100000]")
    ] = None,
    usage_age: Annotated[
        str | None, typer.Option(help="How long the store keeps a usage record. [default: 30d]")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="Header dialects: ietf, openai, venice. [default: ietf]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json. [default: console]")] = None,
    history: Annotated[
        str | None, typer.Option(help="A file to which every decision is written, for `ratelimit verify`.")
    ] = None,
    trusted_proxies: Annotated[
        str | None, typer.Option(help="Networks whose X-Forwarded-For is trusted. [default: loopback]")
    ] = None,
) -> None:
    """Run the sidecar. Every flag can also be set as RATELIMIT_<NAME> in the environment."""
    flags = {name: value for name, value in locals().items() if value is not None}
    settings = _read_settings(flags)
    logs.configure(settings.log_format)
    # SIGHUP reloads the policy. Until that works it must not end the process, which it does by default.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn answers the open requests and then raises the signal again. Exit only then, and clean up.
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        policy_to_serve = Policy.from_file(settings.policy)
        # This limiter decides nothing. It stays open because an embedded server stops after its last user.
        with Limiter(settings.store_url, policy_to_serve) as limiter:
            _ping_store(limiter)
            _check_grpc(settings)
            listener = _open_listener(settings)
            print_banner(settings, listener, limiter)
            warn_of_unsafe_settings(settings, limiter.policy)
            _run_server(settings, listener, limiter)
    except RateLimitError as error:
        fail(error)


def _read_settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings(**flags)
    except pydantic.ValidationError as error:
        for line in list_setting_faults(error):
            typer.echo(f"ratelimit: {line}", err=True)
        raise typer.Exit(2) from None


def _ping_store(limiter: Limiter) -> None:
    """Exit if the store refuses the connection. If it does not answer, only warn: `on_outage` applies."""
    try:
        limiter.ping()
    except StoreUnavailable as error:
        if error.refused:
            fail(error)
        log.warning("the store does not answer yet; each limit's on_outage applies", store=limiter.store)


def _open_listener(settings: Settings) -> socket.socket:
    """Listen before the server runs, so that early clients wait instead of being refused."""
    try:
        if settings.uds is not None:
            return _open_unix_listener(settings.uds)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        address = settings.uds or f"{settings.host}:{settings.port}"
        reason = os.strerror(error.errno) if error.errno else error
        fail(f"cannot listen on {address}: {reason}; choose another with --port or --uds")


def _check_grpc(settings: Settings) -> None:
    """Exit if gRPC cannot run as set. Without its packages, only an explicit port is an error."""
    if settings.grpc_port == 0:
        return
    if not rls.is_installed():
        if "grpc_port" in settings.model_fields_set:
            fail("--grpc-port: the packages of gRPC are missing; pip install 'ratelimit-sidecar[grpc]'")
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.grpc_port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        fail(
            f"cannot listen on {settings.host}:{settings.grpc_port} for gRPC: {reason};"
            " choose another port with --grpc-port, or 0 to turn it off"
        )


def _open_unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()  # a process that has ended did not remove it
    listener.bind(str(path))
    # As with a port, every user may connect. The folder's mode and the gateway token restrict that.
    path.chmod(0o666)
    listener.listen(2048)
    return listener


def _run_server(settings: Settings, listener: socket.socket, limiter: Limiter) -> None:
    try:
        if settings.workers == 1:
            config = uvicorn.Config(_create_frozen_app(settings), **UVICORN_OPTIONS)
            uvicorn.Server(config).run(sockets=[listener])
        else:
            _run_workers(settings, listener, limiter)
    finally:
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _run_workers(settings: Settings, listener: socket.socket, limiter: Limiter) -> None:
    with tempfile.TemporaryDirectory(prefix="ratelimit-workers-") as folder:
        last_policy = Path(folder, "policy.json")
        save_policy(limiter.policy, last_policy)
        _export_settings(settings, limiter, last_policy)
        # Workers are new programs, so they import prometheus_client after this is set.
        Path(folder, "metrics").mkdir()
        os.environ[MULTIPROCESS] = str(Path(folder, "metrics"))
        config = uvicorn.Config(
            "service.cli.serve:create_worker_app", factory=True, workers=settings.workers, **UVICORN_OPTIONS
        )
        Workers(config, sockets=[listener]).run()


def create_worker_app() -> FastAPI:
    """Make the application of one worker, from the environment that the parent process has set."""
    settings = Settings()
    logs.configure(settings.log_format)
    return _create_frozen_app(settings)


def _create_frozen_app(settings: Settings) -> FastAPI:
    app = create_app(settings)
    freeze_startup_objects()
    return app


def freeze_startup_objects() -> None:
    """Exclude all present objects from garbage collection, because they last as long as the process.

    Searching them again and again took a tenth of the time of each check. The objects that a check makes are
    freed without the collector, so it can also search less often than after 700 new objects, Python's
    default: that saves another twentieth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _export_settings(settings: Settings, limiter: Limiter, last_policy: Path) -> None:
    """Put the settings into the environment for workers, with one store and one pepper for all of them."""
    if settings.redis.startswith("memory:"):
        fail("--workers: memory:// cannot be shared between processes; use embedded:// or redis://")
    in_address = StoreSettings.model_fields.keys() - {"redis"}
    for name in in_address:
        os.environ.pop(f"RATELIMIT_{name.upper()}", None)
    values: dict[str, Any] = {
        **settings.model_dump(mode="json", exclude_none=True, exclude={"max_skew", *in_address}),
        "redis": limiter.address,
        "max_skew": "none" if settings.max_skew is None else settings.max_skew,
        "key_pepper": choose_pepper(settings),
        "last_policy": last_policy,
    }
    for name in ("admin_token", "gateway_token"):
        token = getattr(settings, name)
        if token is not None:
            values[name] = token.get_secret_value()
    for name, value in values.items():
        text = ",".join(str(item) for item in value) if isinstance(value, list) else str(value)
        os.environ[f"RATELIMIT_{name.upper()}"] = text
