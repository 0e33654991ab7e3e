"""All commands of `ratelimit`. Exit codes: 0 allowed or valid, 1 denied or invalid, 2 wrong usage."""

from __future__ import annotations

import typer

from service.cli import keys, policy
from service.cli.serve import serve
from service.cli.top import top
from service.cli.usage import usage

app = typer.Typer(
    name="ratelimit",
    help="A token-bucket rate limiter on Redis for APIs whose requests do not all cost the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # square brackets in help are defaults, not markup
)
app.command()(serve)
app.command()(keys.check)
app.command()(usage)
app.command()(top)
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
