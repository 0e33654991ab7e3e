"""Every command and option of `ratelimit`, from its help."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import typer

from service.cli.commands import app

if TYPE_CHECKING:
    from collections.abc import Iterator

URI: Final = "reference/commands.md"


def make_page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Commands",
        "",
        "Made from the help of each command. The exit code is 0 for allowed or valid, 1 for denied or",
        "invalid, and 2 for wrong usage. [Settings](../operations/settings.md) explains the settings of",
        "`ratelimit serve`.",
        "",
    ]
    for words, command in _walk(typer.main.get_command(app), ["ratelimit"]):
        arguments = [option.name.upper() for option in command.params if option.param_type_name == "argument"]
        text = html.escape(" ".join((command.help or "").split()), quote=False)
        lines += [f"## `{' '.join([*words, *arguments])}`", "", text, ""]
        lines += ['<div class="options" markdown>', "", "| option | |", "|---|---|"]
        lines += [_describe(option) for option in command.params if option.name != "help"]
        lines += ["", "</div>", ""]
    return "\n".join(lines)


def _walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:  # noqa: ANN401 - no public type
    """Yield each command that does something, and how it is called."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _walk(inner, [*words, name])


def _describe(option: Any) -> str:  # noqa: ANN401 - as above
    is_argument = option.param_type_name == "argument"
    names = [option.name.upper()] if is_argument else [*option.opts, *option.secondary_opts]
    told = html.escape(getattr(option, "help", None) or "", quote=False)
    if option.required and not is_argument:
        told += " **required**"
    elif option.default and isinstance(option.default, str | int | float) and "[default" not in told:
        told += f" [default: {option.default}]"
    return f"| {', '.join(f'`{name}`' for name in names)} | {told.replace('|', chr(92) + '|')} |"
