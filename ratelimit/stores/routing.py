"""Which command goes to which server of a cluster, and what follows from the reply. No I/O.

    routing = route(topology, commands)
    step = next(routing)
    while True:                                   # until StopIteration, whose value is the outcomes
        wait for step.pause
        answers = send step.batches               # a list of answers for each batch
        step = routing.send(answers)              # or None: the time is over

A server that refuses a command because of its slot has not run it, so the command is sent again, where the
server says. All other errors are outcomes: a command whose outcome is unknown is never sent again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from ratelimit.stores.topology import parse_redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ratelimit.stores.topology import Topology
    from ratelimit.stores.transport import Command
    from ratelimit.stores.url import Address

FIRST_PAUSE: Final = 0.001
"""Seconds before a command is sent again that no server can run now. Each pause is twice the last."""

_ASKING: Final[Command] = ("ASKING",)


@dataclass(slots=True, eq=False)
class RoutedCommand:
    """A command for the server that has a slot.

    Attributes:
        slot: the slot.
        encode: returns the command; with true, with the source of the script in place of its name.
        split: returns commands that do the same in smaller parts; None if it cannot be split. While a slot is
            being moved, a command with keys on both servers cannot run, but its parts can. The outcome of a
            command that was split is the list of the outcomes of its parts.
        checks: how many checks it carries.
    """

    slot: int
    encode: Callable[[bool], Command]
    split: Callable[[], list[RoutedCommand]] | None = None
    checks: int = 0


class Batch(NamedTuple):
    """Commands to send together to one server.

    Attributes:
        address: the server.
        commands: the commands.
        checks: how many checks each of them carries.
    """

    address: Address
    commands: list[Command]
    checks: list[int]


class Step(NamedTuple):
    """What to do next.

    Attributes:
        pause: seconds to wait before.
        batches: what to send.
    """

    pause: float
    batches: list[Batch]


@dataclass(slots=True, eq=False)
class _Pending:
    """A command that has no outcome yet, and where its outcome goes."""

    command: RoutedCommand
    outcomes: list[Any]
    index: int
    address: Address | None = None  # where to send it; None for the primary of its slot
    is_asking: bool = False
    needs_source: bool = False
    error: Exception | None = field(default=None, repr=False)


def route(
    topology: Topology, commands: Sequence[RoutedCommand]
) -> Generator[Step, list[list[Any]] | None, list[Any]]:
    """Return the outcome of each command: its reply, or an error."""
    outcomes: list[Any] = [None] * len(commands)
    pending = [_Pending(command, outcomes, index) for index, command in enumerate(commands)]
    pause = 0.0
    while pending:
        groups = _group_by_server(topology, pending)
        answers = yield Step(pause, [_make_batch(address, group) for address, group in groups.items()])
        if answers is None:
            for each in pending:
                each.outcomes[each.index] = each.error or TimeoutError()
            break
        pending = []
        has_to_wait = False
        for (address, group), answers_of_group in zip(groups.items(), answers, strict=True):
            replies = iter(answers_of_group)
            for each in group:
                if each.is_asking:
                    next(replies)
                kept, must_wait = _read_answer(topology, address, each, next(replies))
                pending += kept
                has_to_wait |= must_wait
        pause = (pause * 2 or FIRST_PAUSE) if has_to_wait else 0.0
    return outcomes


def _group_by_server(topology: Topology, pending: list[_Pending]) -> dict[Address, list[_Pending]]:
    groups: dict[Address, list[_Pending]] = {}
    for each in pending:
        address = each.address or topology.find_primary(each.command.slot)
        groups.setdefault(address, []).append(each)
    return groups


def _make_batch(address: Address, group: list[_Pending]) -> Batch:
    commands: list[Command] = []
    for each in group:
        if each.is_asking:
            commands.append(_ASKING)
        commands.append(each.command.encode(each.needs_source))
    return Batch(address, commands, [each.command.checks for each in group])


def _read_answer(
    topology: Topology,
    address: Address,
    pending: _Pending,
    answer: Any,  # noqa: ANN401 - any reply
) -> tuple[list[_Pending], bool]:
    """Read the answer to one command; return what is still to send, and whether after a pause."""
    if isinstance(answer, NoScriptError):
        pending.needs_source = True
        return [pending], False
    redirect = parse_redirect(answer) if isinstance(answer, ResponseError) else None
    if redirect is None:
        pending.outcomes[pending.index] = answer
        return [], False
    pending.error = answer
    pending.address, pending.is_asking = None, False
    other = redirect.address and (redirect.address[0] or address[0], redirect.address[1])
    if redirect.kind == "moved" and other:
        topology.move_slot(pending.command.slot, other)
        # Two servers that each name the other one would be asked without end.
        return [pending], True
    if pending.command.split is not None:
        parts = pending.command.split()
        outcomes: list[Any] = [None] * len(parts)
        pending.outcomes[pending.index] = outcomes
        return [_Pending(part, outcomes, index) for index, part in enumerate(parts)], False
    if redirect.kind == "ask":
        pending.address, pending.is_asking = other, True
        return [pending], False
    return [pending], True
