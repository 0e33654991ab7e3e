"""Checks and settlements as commands for the servers of a cluster. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimit.engine.check_script import MAX_LIMITS_PER_CALL, split_replies
from ratelimit.engine.keyspace import find_slot, find_tag
from ratelimit.stores.routing import RoutedCommand
from ratelimit.stores.scripts import CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command

    EncodeChecks = Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]]


class PlainCommand(RoutedCommand):
    """A command whose first argument is its store key."""

    def __init__(self, command: Command) -> None:
        super().__init__(find_slot(find_tag(str(command[1]))))
        self._command = command

    def encode(self) -> Command:
        """See `RoutedCommand`."""
        return self._command


class ScriptCommand(RoutedCommand):
    """A call of a script."""

    def __init__(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> None:
        super().__init__(find_slot(find_tag(keys[0])))
        self._script, self._keys, self._args = script, keys, args

    def encode(self) -> Command:
        """See `RoutedCommand`."""
        return _encode_script(self._script, self._keys, self._args, use_source=self.needs_source)


class CheckCommand(RoutedCommand):
    """A call for checks of one slot.

    Attributes:
        checks: the checks.
        indexes: their places among all checks.
        weight: how many limits they have.
    """

    parts: Sequence[CheckCommand] = ()

    def __init__(self, slot: int, encode_checks: EncodeChecks) -> None:
        super().__init__(slot)
        self._encode_checks = encode_checks
        self.checks: list[ResolvedCheck] = []
        self.indexes: list[int] = []
        self.weight = 0

    @property
    def check_count(self) -> int:
        """See `RoutedCommand`."""
        return len(self.checks)

    def encode(self) -> Command:
        """See `RoutedCommand`."""
        return _encode_script(CHECK, *self._encode_checks(self.checks), use_source=self.needs_source)

    def split(self) -> Sequence[CheckCommand]:
        """See `RoutedCommand`."""
        if len(self.checks) == 1:
            return ()
        parts = []
        for check, index in zip(self.checks, self.indexes, strict=True):
            part = CheckCommand(self.slot, self._encode_checks)
            part.checks, part.indexes = [check], [index]
            parts.append(part)
        return parts

    def put_replies(self, replies: list[Any]) -> None:
        """Put the reply to each of its checks, or the error of the call, at its place in a list."""
        for part in self.parts:
            part.put_replies(replies)
        if not self.parts:
            count, outcome = len(self.checks), self.outcome
            each = [outcome] * count if isinstance(outcome, Exception) else split_replies(outcome, count)
            for index, reply in zip(self.indexes, each, strict=True):
                replies[index] = reply


def make_check_commands(checks: Sequence[ResolvedCheck], encode_checks: EncodeChecks) -> list[CheckCommand]:
    """Return the calls for checks: those of one slot in one call, in order, unless it gets too large."""
    commands: list[CheckCommand] = []
    latest: dict[int, CheckCommand] = {}  # of each slot
    for index, check in enumerate(checks):
        subject = check.subject
        slot, weight = subject.cluster_slot, subject.layout.weight
        command = latest.get(slot)
        if command is None or command.weight + weight > MAX_LIMITS_PER_CALL:
            command = latest[slot] = CheckCommand(slot, encode_checks)
            commands.append(command)
        command.checks.append(check)
        command.indexes.append(index)
        command.weight += weight
    return commands


def collect_replies(commands: Sequence[CheckCommand], count: int) -> list[bytes | Exception]:
    """Return the reply to each of `count` checks, or the error of the call that carried it."""
    replies: list[Any] = [None] * count
    for command in commands:
        command.put_replies(replies)
    return replies


def _encode_script(
    script: Script, keys: list[str], args: list[ScriptArgument], *, use_source: bool
) -> Command:
    name, text = ("EVAL", script.source) if use_source else ("EVALSHA", script.sha)
    return (name, text, len(keys), *keys, *args)
