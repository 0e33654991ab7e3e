"""Which command goes to which server of a cluster, and what follows from the reply. No I/O.

    routing = route(topology, commands)
    step = next(routing)
    while True:                                   # until StopIteration: each command has its outcome
        wait for step.pause
        answers = send step.batches               # a list of answers for each batch
        step = routing.send(answers)              # or None: the time is over

A server that refuses a command because of its slot has not run it, so the command is sent again, where the
server says. All other errors are outcomes: a command whose outcome is unknown is never sent again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from ratelimit.stores.topology import parse_redirect

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ratelimit.stores.topology import Topology
    from ratelimit.stores.transport import Command
    from ratelimit.stores.url import Address

FIRST_PAUSE: Final = 0.001
"""Seconds before a command is sent again that no server can run now. Each pause is twice the last."""

_ASKING: Final[Command] = ("ASKING",)


class RoutedCommand(ABC):
    """A command for the server that has a slot, and what is known of it so far.

    Attributes:
        slot: the slot.
        outcome: its reply, or an error.
        parts: what it was split into; they have the outcomes, then.
        address: where to send it; None for the primary of its slot.
        is_asking: whether that server has the slot only if it is told so.
        needs_source: whether to send the source of the script in place of its name.
        error: the last refusal.
    """

    # A write has many commands, and most of them keep all of these.
    outcome: Any = None
    parts: Sequence[RoutedCommand] = ()
    address: Address | None = None
    is_asking = False
    needs_source = False
    error: Exception | None = None

    def __init__(self, slot: int) -> None:
        self.slot = slot

    @property
    def check_count(self) -> int:
        """How many checks it carries."""
        return 0

    @abstractmethod
    def encode(self) -> Command:
        """Return the command."""

    def split(self) -> Sequence[RoutedCommand]:
        """Return commands that do the same in smaller parts; none if it cannot be split.

        While a slot is being moved, a command with keys on both servers cannot run, but its parts can.
        """
        return ()


class Batch(NamedTuple):
    """Commands to send together to one server.

    Attributes:
        address: the server.
        commands: the commands.
        check_counts: how many checks each of them carries.
    """

    address: Address
    commands: list[Command]
    check_counts: list[int]


class Step(NamedTuple):
    """What to do next.

    Attributes:
        pause: seconds to wait before.
        batches: what to send.
    """

    pause: float
    batches: list[Batch]


def route(
    topology: Topology, commands: Sequence[RoutedCommand]
) -> Generator[Step, list[list[Any]] | None, None]:
    """Give each command, or each of its parts, its outcome."""
    pause = 0.0
    while commands:
        groups = _group_by_server(topology, commands)
        answers = yield Step(pause, [_make_batch(address, group) for address, group in groups.items()])
        if answers is None:
            for command in commands:
                command.outcome = command.error or TimeoutError()
            break
        refused: list[RoutedCommand] = []
        has_to_wait = False
        for (address, group), answers_of_group in zip(groups.items(), answers, strict=True):
            replies = iter(answers_of_group)
            for command in group:
                if command.is_asking:
                    next(replies)
                answer = next(replies)
                if isinstance(answer, ResponseError):
                    again, must_wait = _read_error(topology, address, command, answer)
                    refused += again
                    has_to_wait |= must_wait
                else:
                    command.outcome = answer
        commands = refused
        pause = (pause * 2 or FIRST_PAUSE) if has_to_wait else 0.0


def _group_by_server(
    topology: Topology, commands: Sequence[RoutedCommand]
) -> dict[Address, list[RoutedCommand]]:
    groups: dict[Address, list[RoutedCommand]] = {}
    for command in commands:
        address = command.address or topology.find_primary(command.slot)
        groups.setdefault(address, []).append(command)
    return groups


def _make_batch(address: Address, group: list[RoutedCommand]) -> Batch:
    commands: list[Command] = []
    for command in group:
        if command.is_asking:
            commands.append(_ASKING)
        commands.append(command.encode())
    return Batch(address, commands, [command.check_count for command in group])


def _read_error(
    topology: Topology, address: Address, command: RoutedCommand, error: ResponseError
) -> tuple[Sequence[RoutedCommand], bool]:
    """Read an error reply to a command; return what is still to send, and whether after a pause."""
    if isinstance(error, NoScriptError):
        command.needs_source = True
        return [command], False
    redirect = parse_redirect(error)
    if redirect is None:
        command.outcome = error
        return [], False
    command.error = error
    command.address, command.is_asking = None, False
    other = redirect.address and (redirect.address[0] or address[0], redirect.address[1])
    if redirect.kind == "moved" and other:
        topology.move_slot(command.slot, other)
        # Two servers that each name the other one would be asked without end.
        return [command], True
    command.parts = command.split()
    if command.parts:
        return command.parts, False
    if redirect.kind == "ask":
        command.address, command.is_asking = other, True
        return [command], False
    return [command], True
