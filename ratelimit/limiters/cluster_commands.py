"""Checks and settlements as commands for the servers of a cluster. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ratelimit.engine.check_script import split_into_calls, split_replies
from ratelimit.engine.keyspace import find_slot, find_tag
from ratelimit.stores.routing import RoutedCommand
from ratelimit.stores.scripts import CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command


class SlotCall(NamedTuple):
    """Checks of one slot that share a call.

    Attributes:
        indexes: their places among all checks.
        command: the call.
    """

    indexes: list[int]
    command: RoutedCommand


def make_slot_calls(
    checks: Sequence[ResolvedCheck],
    encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
) -> list[SlotCall]:
    """Return the calls for checks: those of one slot in one call, in their order."""
    places: dict[int, list[int]] = {}
    for index, check in enumerate(checks):
        places.setdefault(check.subject.cluster_slot, []).append(index)
    calls = []
    for slot, indexes in places.items():
        rest = iter(indexes)
        for group in split_into_calls([checks[index] for index in indexes]):
            command = _make_check_command(slot, group, encode_checks)
            calls.append(SlotCall([next(rest) for _ in group], command))
    return calls


def _make_check_command(
    slot: int,
    checks: list[ResolvedCheck],
    encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
) -> RoutedCommand:
    def encode(use_source: bool) -> Command:  # noqa: FBT001 - a callback
        return _encode_script(CHECK, *encode_checks(checks), use_source=use_source)

    def split() -> list[RoutedCommand]:
        return [_make_check_command(slot, [check], encode_checks) for check in checks]

    return RoutedCommand(slot, encode, split if len(checks) > 1 else None, len(checks))


def make_script_command(script: Script, keys: list[str], args: list[ScriptArgument]) -> RoutedCommand:
    """Return the call of a script."""

    def encode(use_source: bool) -> Command:  # noqa: FBT001 - a callback
        return _encode_script(script, keys, args, use_source=use_source)

    return RoutedCommand(find_slot(find_tag(keys[0])), encode)


def make_plain_command(command: Command) -> RoutedCommand:
    """Return a command whose first argument is its store key."""
    return RoutedCommand(find_slot(find_tag(str(command[1]))), lambda _: command)


def _encode_script(
    script: Script, keys: list[str], args: list[ScriptArgument], *, use_source: bool
) -> Command:
    name, text = ("EVAL", script.source) if use_source else ("EVALSHA", script.sha)
    return (name, text, len(keys), *keys, *args)


def read_outcomes(count: int, calls: Sequence[SlotCall], outcomes: Sequence[Any]) -> list[bytes | Exception]:
    """Return the reply to each of `count` checks, or the error of the call that carried it."""
    replies: list[Any] = [None] * count
    for call, outcome in zip(calls, outcomes, strict=True):
        count = len(call.indexes)
        is_error = isinstance(outcome, Exception)
        each = [outcome] * count if is_error else split_replies(outcome, count)
        for index, reply in zip(call.indexes, each, strict=True):
            replies[index] = reply
    return replies
