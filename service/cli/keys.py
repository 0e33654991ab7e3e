"""`ratelimit check KEY` and `ratelimit keys show|reset|id`: one key, from the command line."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratelimit import Fault, InvalidRequest, Limiter, Policy, PolicyError, RateLimitError
from ratelimit.web.identity import key_of_secret
from service.cli.output import Json, console, fail, show_decision, show_json
from service.cli.store import complete_store_url

if TYPE_CHECKING:
    from ratelimit.request.check import CheckOptions

app = typer.Typer(help="Show a key's limits, reset a key, or make the key of a secret.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="The API key's identifier, never its secret.")]
PolicyFile = Annotated[
    Path,
    typer.Option("--policy", "-p", envvar="RATELIMIT_POLICY", help="The policy file.", show_default=False),
]
Store = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="RATELIMIT_REDIS",
        help="The store: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, embedded:///path.",
        callback=complete_store_url,
    ),
]
Pepper = Annotated[
    str | None,
    typer.Option(
        "--key-pepper",
        envvar="RATELIMIT_KEY_PEPPER",
        help="The pepper of the sidecars. Prefer the environment: flags are visible to other users.",
        show_default=False,
    ),
]
EMBEDDED = "embedded://"
Plan = Annotated[str | None, typer.Option(help="The plan to apply.")]
Model = Annotated[str | None, typer.Option(help="The model asked for.")]
Tenant = Annotated[str | None, typer.Option(help="Who owns the key.")]
Cost = Annotated[list[str] | None, typer.Option(help="Units taken, such as tokens=512. May be repeated.")]

DEADLINE = 1.0
"""Seconds that the store may take: a person at a terminal can wait longer than a request."""


def check(
    key: Key,
    policy: PolicyFile,
    redis: Store = EMBEDDED,
    plan: Plan = None,
    model: Model = None,
    tenant: Tenant = None,
    cost: Cost = None,
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Check one request of KEY and charge it. Exit 0 if it is allowed, 1 if it is denied."""
    _decide(key, policy, redis, _make_options(plan, model, tenant, cost), take=True, json=json)


@app.command("show")
def show(
    key: Key,
    policy: PolicyFile,
    redis: Store = EMBEDDED,
    plan: Plan = None,
    model: Model = None,
    tenant: Tenant = None,
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show the limits of KEY and charge nothing. Exit 0 if one request would be allowed, else 1."""
    _decide(key, policy, redis, _make_options(plan, model, tenant, None), take=False, json=json)


@app.command("reset")
def reset(
    key: Key,
    policy: PolicyFile,
    redis: Store = EMBEDDED,
    tenant: Tenant = None,
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Reset KEY: its buckets are full again. Buckets that it shares with other keys do not change."""
    try:
        with _open_limiter(policy, redis) as limiter:
            limiter.refresh()
            limiter.reset(key, tenant=tenant)
    except RateLimitError as error:
        fail(error)
    if json:
        show_json({"key": key, "reset": True})
    else:
        console.print(f"{key} is reset: its buckets are full")


@app.command("id")
def make_id(
    key_pepper: Pepper = None,
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Print the key of a secret, for the policy file and PUT /v1/keys.

    The secret is read from standard input, so that it reaches neither the shell's history nor the list
    of processes. The pepper must be the one that the sidecars use.
    """
    if not (key_pepper or "").strip():
        fail("--key-pepper (RATELIMIT_KEY_PEPPER): required; the sidecars' pepper, or the key is another")
    try:
        key = key_of_secret(_read_secret(), key_pepper or "")
    except InvalidRequest as error:
        fail(f"standard input: {error}; write one secret, on one line")
    if json:
        show_json({"key": key})
    else:
        typer.echo(key)


def _read_secret() -> str:
    """Read one secret as the sidecar sees it in a header: each byte one character (Latin-1)."""
    if sys.stdin.isatty():
        return getpass.getpass("secret: ").encode().decode("latin-1")
    lines = sys.stdin.buffer.read().decode("latin-1").strip("\r\n").splitlines()
    if len(lines) > 1:
        raise InvalidRequest([Fault("secret", f"has {len(lines)} lines")])
    return "".join(lines)


def _decide(key: str, policy: Path, redis: str, options: CheckOptions, *, take: bool, json: bool) -> None:
    try:
        with _open_limiter(policy, redis) as limiter:
            limiter.refresh()
            decision = limiter.check(key, **options) if take else limiter.peek(key, **options)
    except RateLimitError as error:
        fail(error)
    show_decision(decision, as_json=json)
    raise typer.Exit(0 if decision else 1)


def _open_limiter(policy: Path, redis: str) -> Limiter:
    try:
        return Limiter(redis, Policy.from_file(policy), deadline=DEADLINE)
    except (PolicyError, InvalidRequest) as error:
        fail(error)


def _make_options(
    plan: str | None, model: str | None, tenant: str | None, cost: list[str] | None
) -> CheckOptions:
    options: CheckOptions = {"plan": plan, "model": model, "tenant": tenant}
    if cost:
        options["cost"] = dict(_parse_cost(text) for text in cost)
    return options


def _parse_cost(text: str) -> tuple[str, float]:
    unit, _, amount = text.partition("=")
    try:
        return unit, float(amount)
    except ValueError:
        fail(f"--cost {text}: write a unit and an amount, such as tokens=512")
