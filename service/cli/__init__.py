"""The `ratelimit` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command."""
    try:
        from service.cli.commands import app  # noqa: PLC0415 - its packages are an extra, which may be missing
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - typer, which other commands print with, may be what is missing
            f"ratelimit: the package {error.name} is missing; pip install 'ratelimit-sidecar[service]',"
            " or [service,embedded] for a store without a server",
            file=sys.stderr,
        )
        sys.exit(2)  # wrong usage; 1 would mean that a check was denied
    app()
