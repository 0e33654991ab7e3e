"""All commands of `ratelimit`. Exit codes: 0 allowed or valid, 1 denied or invalid, 2 wrong usage."""

from __future__ import annotations

from typing import Annotated

import typer

from ratelimit import __version__
from service.cli import keys, policy
from service.cli.serve import serve
from service.cli.top import top
from service.cli.usage import usage
from service.cli.verify import verify

app = typer.Typer(
    name="ratelimit",
    help="A token-bucket rate limiter on Redis for APIs whose requests do not all cost the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # square brackets in help are defaults, not markup
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it
    if value:
        typer.echo(f"ratelimit {__version__}")
        raise typer.Exit


@app.callback()
def _read_options(
    _: Annotated[  # noqa: FBT002 - typer makes it a flag
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(serve)
app.command()(keys.check)
app.command()(usage)
app.command()(top)
app.command()(verify)
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
