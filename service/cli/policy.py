"""`ratelimit policy check FILE` and `ratelimit policy schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratelimit import Policy, PolicyError
from ratelimit.policy.spec import PolicySpec
from service.cli.output import Json, console, show_json

app = typer.Typer(help="Check a policy file, or print its schema.", no_args_is_help=True)


@app.command("check")
def check_policy(
    file: Annotated[Path, typer.Argument(help="The policy file.")],
    json: Json = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Check FILE. Exit 0 if it is valid, else 1 with every fault, its line and what is allowed."""
    try:
        policy = Policy.from_file(file)
    except PolicyError as error:
        if json:
            show_json(
                {
                    "valid": False,
                    "source": error.source,
                    "faults": [fault._asdict() for fault in error.faults],
                }
            )
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if json:
        show_json({"valid": True, "source": policy.source, "version": policy.version})
        return
    plans = ", ".join(f"{plan.name} ({len(plan.limits)})" for plan in policy.plans.values())
    console.print(f"{file} is valid: plans {plans}; default {policy.default_plan}; {len(policy.keys)} keys")


@app.command("schema")
def print_schema(
    json: Json = True,  # noqa: ARG001, FBT002 - accepted as in other commands; a schema is always JSON
) -> None:
    """Print the JSON Schema of policy files, for editors."""
    show_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **PolicySpec.model_json_schema()})
