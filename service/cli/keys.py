"""`ratelimit check KEY` and `ratelimit keys show|reset KEY`: one key, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratelimit import InvalidRequest, Limiter, Policy, PolicyError, RateLimitError
from service.cli.output import Json, console, fail, show_decision, show_json

if TYPE_CHECKING:
    from ratelimit.request.check import CheckOptions

app = typer.Typer(help="Look at a key, or give it a fresh start.", no_args_is_help=True)

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
        help="The store: redis://, rediss://, unix://, embedded:///path.",
    ),
]
EMBEDDED = "embedded://"
Plan = Annotated[str | None, typer.Option(help="The plan to apply.")]
Model = Annotated[str | None, typer.Option(help="The model asked for.")]
Tenant = Annotated[str | None, typer.Option(help="Who owns the key.")]
Cost = Annotated[list[str] | None, typer.Option(help="Units taken, such as tokens=512. May be repeated.")]

DEADLINE = 1.0
"""Seconds: people at a terminal can wait longer than requests."""


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
    """Check one request of KEY and charge it: exit 0 if it passes, 1 if it is denied."""
    _decide(key, policy, redis, _options(plan, model, tenant, cost), take=True, json=json)


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
    """Show the limits of KEY and charge nothing: exit 0 if one request would pass, else 1."""
    _decide(key, policy, redis, _options(plan, model, tenant, None), take=False, json=json)


@app.command("reset")
def reset(
    key: Key,
    policy: PolicyFile,
    redis: Store = EMBEDDED,
    tenant: Tenant = None,
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Forget what KEY has used; buckets that it shares with others stay as they are."""
    try:
        with _limiter(policy, redis) as limiter:
            limiter.refresh()
            limiter.reset(key, tenant=tenant)
    except RateLimitError as error:
        fail(error)
    if json:
        show_json({"key": key, "reset": True})
    else:
        console.print(f"{key} has a fresh start")


def _decide(key: str, policy: Path, redis: str, options: CheckOptions, *, take: bool, json: bool) -> None:
    try:
        with _limiter(policy, redis) as limiter:
            limiter.refresh()
            decision = limiter.check(key, **options) if take else limiter.peek(key, **options)
    except RateLimitError as error:
        fail(error)
    show_decision(decision, as_json=json)
    raise typer.Exit(0 if decision else 1)


def _limiter(policy: Path, redis: str) -> Limiter:
    try:
        return Limiter(redis, Policy.from_file(policy), deadline=DEADLINE)
    except (PolicyError, InvalidRequest) as error:
        fail(error)


def _options(plan: str | None, model: str | None, tenant: str | None, cost: list[str] | None) -> CheckOptions:
    options: CheckOptions = {"plan": plan, "model": model, "tenant": tenant}
    if cost:
        options["cost"] = dict(_amount(text) for text in cost)
    return options


def _amount(text: str) -> tuple[str, float]:
    unit, _, amount = text.partition("=")
    try:
        return unit, float(amount)
    except ValueError:
        fail(f"--cost {text}: write a unit and an amount, such as tokens=512")
